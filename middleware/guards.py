"""What a route asks of its caller before its handler runs. With an unguarded route nothing starts (design §5)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from access.decision import Requirement

_ATTRIBUTE: Final = "__kisum_guard__"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class ScopeSource(StrEnum):
    """Where the scope values of a request come from. Until they are judged the request is not allowed in full."""

    #: A stored object: the operation loads it and calls `AccessContext.require_scope` with its values.
    OBJECT = "object"
    #: The request's body, for what is not stored yet: the same call, with the body's values.
    BODY = "body"
    #: A list, report or export: its query is restricted by `AccessContext.scope_filter`.
    FILTER = "filter"


@dataclass(frozen=True)
class NoScope:
    """Nothing of the request lies in a scope. The reason is written down, because this is an exemption."""

    reason: str


@dataclass(frozen=True)
class Public:
    """Nobody is asked for anything. The reason is written down, because this is an exemption."""

    reason: str


@dataclass(frozen=True)
class SignedIn:
    """Any person with a valid access token of a live session, in no company yet."""


@dataclass(frozen=True)
class ActiveMember:
    """Guard A: an active membership of the company the request is for, whatever was bought or granted."""


@dataclass(frozen=True)
class CompanyAdmin:
    """Guard T: a TENANT_SUPERADMIN of the company the request is for."""


@dataclass(frozen=True)
class PlatformAdmin:
    """Guard P: a member of the company `platform`; the request is for no company."""


@dataclass(frozen=True)
class Permission:
    """A module permission in the company the request is for. Raises UnknownPermissionError for a key in no catalog."""

    key: str
    scope: ScopeSource | NoScope
    requirement: Requirement = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "requirement", Requirement.of(self.key))


Guard = Public | SignedIn | ActiveMember | CompanyAdmin | PlatformAdmin | Permission


def guard(required: Guard) -> Callable[[Endpoint], Endpoint]:
    """Declare the guard of a route: written under the route's decorator, over its handler."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, required)
        return endpoint

    return declare


def guard_of(endpoint: Callable[..., Any]) -> Guard | None:
    """The guard declared for a handler, or None where there is none."""
    declared = getattr(endpoint, _ATTRIBUTE, None)
    return declared if isinstance(declared, Guard) else None
