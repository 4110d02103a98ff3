"""Scopes: on which objects a granted permission may be used (design §5).

Of every type that bounds a permission the grant holds "*" or a list. An empty list and an absent type mean nothing.
Types combine with AND. An object without a value for a restricted type is out of scope.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from access.records import Scope

#: Types whose entries are limits per currency, "EUR:500000" in minor units, and not ids: a value is inside when it is
#: at most the limit of its currency.
LIMIT_TYPES: Final = frozenset({"approval_limit"})
_AMOUNT: Final = re.compile(r"([A-Z]{3}):([0-9]{1,18})")

ScopeValue = UUID | str | None


@dataclass(frozen=True, slots=True)
class ScopeFilter:
    """Which objects a list, report or export may show: for each type every one, or those with these ids."""

    allowed: Mapping[str, Scope]

    @property
    def is_unbounded(self) -> bool:
        """Whether it shows every object."""
        return all(ids == "*" for ids in self.allowed.values())

    def ids(self, scope_type: str) -> Literal["*"] | tuple[str, ...]:
        """`"*"` for no restriction, else the ids; none for a type the grant does not name."""
        return self.allowed.get(scope_type, ())

    def uuids(self, scope_type: str) -> Literal["*"] | tuple[UUID, ...]:
        """As `ids`, for types whose ids are UUIDs. Others among them match no object and are left out."""
        ids = self.ids(scope_type)
        return "*" if ids == "*" else tuple(found for each in ids if (found := _uuid(each)) is not None)


def first_outside(scopes: Mapping[str, Scope], types: Iterable[str], values: Mapping[str, ScopeValue]) -> str | None:
    """The first of these types by which an object with these values is out of scope, or None where it is inside."""
    for scope_type in types:
        allowed = scopes.get(scope_type, ())
        if allowed == "*":
            continue
        value = values.get(scope_type)
        if value is None or not _is_inside(scope_type, str(value), allowed):
            return scope_type
    return None


def filter_of(scopes: Mapping[str, Scope], types: Iterable[str]) -> ScopeFilter:
    """What a query must be restricted to, for these types."""
    return ScopeFilter({scope_type: scopes.get(scope_type, ()) for scope_type in types})


def _is_inside(scope_type: str, value: str, allowed: tuple[str, ...]) -> bool:
    if scope_type not in LIMIT_TYPES:
        return value in allowed
    asked = _AMOUNT.fullmatch(value)
    limits = (_AMOUNT.fullmatch(entry) for entry in allowed)
    return asked is not None and any(
        limit is not None and limit[1] == asked[1] and int(asked[2]) <= int(limit[2]) for limit in limits
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
