"""What a permission row is, and the form of its key."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final

from contracts.errors import DomainError, Kind

_PART: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_PARTS_MIN: Final = 3


class Status(StrEnum):
    """A deprecated row is granted no more. A removed row stays, so that its key and bit are never used again."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    REMOVED = "removed"


@dataclass(frozen=True, kw_only=True)
class Permission:
    """A row of the catalog. Key and bit are for ever (design §3).

    `module` is the first part of the key. Only a legacy key has another first part (`basic.`, `market.`): it is listed
    in the module of the key it resolves to, with a bit of its own there, since grants that hold it are grants of that
    module. A legacy key that resolves to keys of two modules has a row in both.
    """

    module: str
    key: str
    #: What it lets a person do, as read on a form.
    label: str
    #: Its place in the module's bitmask, unique there.
    bit: int
    #: The scope types that can bound it.
    scope_types: tuple[str, ...]
    #: The commercial capability the company needs besides the module.
    capability: str | None = None
    #: The key of this module it resolves to; a revocation of that key takes this one with it.
    alias_of: str | None = None
    status: Status = Status.ACTIVE
    #: Judged by the hard bound of writes on every method (design §5).
    administration: bool = False

    @property
    def resource(self) -> str:
        """What it is about: the parts between the first and the last."""
        return ".".join(self.key.split(".")[1:-1])

    @property
    def action(self) -> str:
        """What may be done: the last part."""
        return self.key.rpartition(".")[2]


class PermissionKeyTooShortError(DomainError):
    """Fewer than three parts; names no action on a resource of a module."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "permission_key_too_short"
    title: ClassVar[str] = "A permission key has at least three parts separated by dots"


class PermissionKeyMalformedError(DomainError):
    """A part that is not lowercase letters, digits, hyphens and underscores."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "permission_key_malformed"
    title: ClassVar[str] = "Each part of a permission key is a lowercase word"


class PermissionKeyOfOtherModuleError(DomainError):
    """The first part is not the module the key was given for."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "permission_key_of_other_module"
    title: ClassVar[str] = "The first part of a permission key is its module"


def normalize_permission_key(text: str, module: str) -> str:
    """The key in its one form: trimmed, lowercase, three or more parts, the first the module (document 004).

    Says nothing of whether such a row exists. Raises PermissionKeyTooShortError, PermissionKeyMalformedError or
    PermissionKeyOfOtherModuleError.
    """
    # Not str.lower on other scripts: it turns some of their letters into ASCII ones.
    key = text.strip().lower() if text.isascii() else text
    facts: dict[str, Any] = {"key": text, "module": module}
    parts = key.split(".")
    if len(parts) < _PARTS_MIN:
        raise PermissionKeyTooShortError(f"{text!r} has {len(parts)} of at least {_PARTS_MIN} parts", **facts)
    for part in parts:
        if not _PART.fullmatch(part):
            raise PermissionKeyMalformedError(f"{text!r}: {part!r} is not a lowercase word", **facts)
    if parts[0] != module:
        raise PermissionKeyOfOtherModuleError(f"{text!r} is not a key of the module {module!r}", **facts)
    return key
