"""Which permission rows may be granted, and what is published of a module's rows (domain §1.2, §2)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from contracts.errors import DomainError, Kind
from contracts.events.auth import PermissionsChanged, PermissionState, PermissionStatus

_MODULE_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ModuleUnknownError(DomainError):
    kind = Kind.INVALID
    code = "module_unknown"
    title = "There is no such module"

    def __init__(self, module: str) -> None:
        super().__init__(f"The permission catalog has no module {module!r}.", module=module)


class PermissionUnknownError(DomainError):
    kind = Kind.INVALID
    code = "permission_unknown"
    title = "There is no such permission"
    pointer = "/permissions"

    def __init__(self, key: str) -> None:
        super().__init__(f"The catalog has no permission {key!r}.", key=key)


class PermissionDeprecatedError(DomainError):
    """A legacy key works where it was granted before; nobody new gets it."""

    kind = Kind.INVALID
    code = "permission_deprecated"
    title = "This permission is not granted any more"
    pointer = "/permissions"

    def __init__(self, key: str, alias_of: str | None) -> None:
        instead = f" Grant {alias_of!r} instead." if alias_of else ""
        super().__init__(f"{key!r} is deprecated.{instead}", key=key, alias_of=alias_of)


class PermissionRemovedError(DomainError):
    kind = Kind.INVALID
    code = "permission_removed"
    title = "This permission was removed"
    pointer = "/permissions"

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} was removed from the catalog.", key=key)


@dataclass(frozen=True)
class CatalogRow:
    """What a rule needs of a row of one module."""

    key: str
    status: PermissionStatus
    alias_of: str | None
    scope_types: tuple[str, ...]


def check_grantable(key: str, row: CatalogRow | None) -> None:
    """Only an active row is granted.

    Raises PermissionUnknownError, PermissionDeprecatedError or PermissionRemovedError.
    """
    if row is None:
        raise PermissionUnknownError(key)
    match row.status:
        case PermissionStatus.ACTIVE:
            return
        case PermissionStatus.DEPRECATED:
            raise PermissionDeprecatedError(key, row.alias_of)
        case _:
            raise PermissionRemovedError(key)


def is_key(key: str) -> bool:
    """Whether the text can be a module's key."""
    return _MODULE_KEY.fullmatch(key) is not None


def scope_types_of(rows: Iterable[CatalogRow]) -> tuple[str, ...]:
    """The scope types a module declares: those of its rows, in alphabetical order."""
    return tuple(sorted({scope_type for row in rows for scope_type in row.scope_types}))


def permissions_changed(module: str, rows: Iterable[CatalogRow]) -> PermissionsChanged:
    """The state of a module's rows as readers judge by it; equal for equal rows."""
    return PermissionsChanged(
        module=module,
        permissions=tuple(
            PermissionState(key=row.key, status=row.status, alias_of=row.alias_of)
            for row in sorted(rows, key=lambda each: each.key)
        ),
    )


def nothing_granted(module: str) -> PermissionsChanged:
    """What is published of a module the catalog does not have: a row that is not named gives nothing."""
    return permissions_changed(module, ())
