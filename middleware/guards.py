"""What a route asks of its caller before its handler runs. With an unguarded route nothing starts (design §5)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

_ATTRIBUTE: Final = "__kisum_guard__"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Public:
    """Nobody is asked for anything. The reason is written down, because this is an exemption."""

    reason: str


@dataclass(frozen=True)
class SignedIn:
    """Any person with a valid access token of a live session, in no company yet."""


Guard = Public | SignedIn


def guard(required: Guard) -> Callable[[Endpoint], Endpoint]:
    """Declare the guard of a route: written under the route's decorator, over its handler."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, required)
        return endpoint

    return declare


def guard_of(endpoint: Callable[..., Any]) -> Guard | None:
    """The guard declared for a handler, or None where there is none."""
    declared = getattr(endpoint, _ATTRIBUTE, None)
    return declared if isinstance(declared, Public | SignedIn) else None
