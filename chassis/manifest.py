"""What a service says of itself: the fields of 001 §6 and 002 §8. Documents and tests read it; nothing repeats it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Manifest:
    """A service's facts. `key` is its one name: folder, topic prefix, database, role and `kisum serve` argument."""

    key: str
    kind: Literal["base", "addon", "system"]
    definition: str
    owns: tuple[str, ...]
    reads: tuple[str, ...]
    publishes: tuple[str, ...]
    must_nots: tuple[str, ...]
    integrations: tuple[str, ...] = ()
    #: 001 §6, for modules; a system service is in no package and has no permission namespace.
    standalone: bool = False
    packages: tuple[str, ...] = ()
    addons_accepted: tuple[str, ...] = ()
    namespace: str | None = None
    scope_types: tuple[str, ...] = ()
    navigation: str | None = None
    #: What stands for the key in routes, where it is another word.
    route_name: str | None = None

    @property
    def route_group(self) -> str:
        """Where its routes are: `/api/finance`, `/api/venue-marketplace`."""
        return f"/api/{self.route_name or self.key.replace('_', '-')}"
