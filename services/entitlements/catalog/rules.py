"""What the catalog means: which modules a package turns on, where an add-on fits, what is known at all."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from contracts.errors import DomainError, Kind
from contracts.events.checkout import Item
from contracts.events.entitlements import AddonChanged, CatalogStatus, ModuleChanged, PackageChanged, PriceChanged
from contracts.payload import Payload

_KEY: Final = re.compile(r"(module|package|addon|price)/([a-z][a-z0-9_]{0,63})")


class ItemUnknownError(DomainError):
    """Nothing is granted for what is not in the catalog: a guess would be access nobody sold."""

    kind = Kind.INVALID
    code = "catalog_item_unknown"
    title = "The catalog has no such item"


class ModuleUnknownError(DomainError):
    kind = Kind.NOT_FOUND
    code = "module_unknown"
    title = "There is no such module"


def parse_key(key: str) -> tuple[str, str]:
    """Kind and key of a row by its key on the topic. Raises ValueError."""
    matched = _KEY.fullmatch(key)
    if matched is None:
        raise ValueError("no kind and key of a row")
    return matched[1], matched[2]


def retired(kind: str, key: str) -> Payload:
    """What is published of a row there is not: it is sold no more, and gives nothing to who bought it."""
    label, status = key, CatalogStatus.RETIRED
    match kind:
        case "module":
            return ModuleChanged(key=key, type="addon", label=label, compatible_bases=(), status=status)
        case "package":
            return PackageChanged(key=key, label=label, base_module=None, addon_modules=(), trial_days=0, status=status)
        case "addon":
            return AddonChanged(key=key, label=label, capability=key, modules=(), status=status)
        case _:
            return PriceChanged(
                key=key,
                item_kind="package",
                item_key=key,
                amount_minor=0,
                currency="USD",
                interval="month",
                placeholder=True,
                status=status,
            )


@dataclass(frozen=True)
class Catalog:
    """Every row, retired ones too: who bought them keeps them. Keyed by the row's own key."""

    modules: Mapping[str, ModuleChanged]
    packages: Mapping[str, PackageChanged]
    addons: Mapping[str, AddonChanged]
    prices: Mapping[str, PriceChanged]

    def row(self, kind: str, key: str) -> Payload:
        """A row as it is published. Raises KeyError."""
        rows: Mapping[str, Mapping[str, Payload]] = {
            "module": self.modules,
            "package": self.packages,
            "addon": self.addons,
            "price": self.prices,
        }
        return rows[kind][key]

    def check_known(self, items: Iterable[Item]) -> None:
        """Raises ItemUnknownError naming every item that is not in the catalog."""
        unknown = sorted(
            {
                f"{item.kind}/{item.key}"
                for item in items
                if item.key not in (self.packages if item.kind == "package" else self.addons)
            }
        )
        if unknown:
            raise ItemUnknownError(f"Not in the catalog: {', '.join(unknown)}.", items=unknown)

    def module(self, key: str) -> ModuleChanged:
        """Raises ModuleUnknownError."""
        if key not in self.modules:
            raise ModuleUnknownError(f"The catalog has no module {key!r}.", module=key)
        return self.modules[key]

    def fits(self, addon_module: str, base_module: str) -> bool:
        """Whether an add-on module may be layered on this base (domain §3, no. 25)."""
        return base_module in self.modules[addon_module].compatible_bases
