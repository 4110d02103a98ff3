"""Who may change a membership, and what a membership holds after a change (domain §1.2)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.events.auth import Delegation, GrantChanged, MembershipStatus, ModuleGrant, PermissionStatus, Scopes
from contracts.identifiers import CompanyId, UserId
from contracts.permissions import normalize_permission_key
from services.auth.permissions.rules import CatalogRow, check_grantable

#: Per currency the highest amount in minor units a person approves; every other scope type holds ids.
_LIMIT_SCOPE_TYPE: Final = "approval_limit"
_LIMIT: Final = re.compile(r"[A-Z]{3}:[0-9]{1,18}")


class MemberUnknownError(DomainError):
    """Unknown, removed, or a member of another company only: the answer must not tell which."""

    kind = Kind.NOT_FOUND
    code = "member_unknown"
    title = "There is no such member"

    def __init__(self) -> None:
        super().__init__("The company has no member with this id.")


class AlreadyAMemberError(DomainError):
    kind = Kind.CONFLICT
    code = "already_a_member"
    title = "This person is a member already"


class OwnGrantError(DomainError):
    kind = Kind.REFUSED
    code = "own_grant"
    title = "Nobody grants to themself"

    def __init__(self) -> None:
        super().__init__("Another administrator of the company can change what you have been given.")


class LastSuperadminError(DomainError):
    kind = Kind.CONFLICT
    code = "last_superadmin"
    title = "A company keeps at least one active administrator"

    def __init__(self) -> None:
        super().__init__("Make somebody else an administrator first.")


class InvitationOpenError(DomainError):
    """Whoever was invited becomes active by accepting, not by an administrator's word."""

    kind = Kind.CONFLICT
    code = "invitation_open"
    title = "The invitation has not been accepted yet"


class SuperadminInactiveError(DomainError):
    kind = Kind.CONFLICT
    code = "superadmin_inactive"
    title = "Only an active member becomes an administrator"


class ModuleNotGrantedError(DomainError):
    kind = Kind.CONFLICT
    code = "member_without_module"
    title = "The member has not been given this module"

    def __init__(self, module: str) -> None:
        super().__init__(f"Give the member the module {module!r} first.", module=module)


class PermissionRepeatedError(DomainError):
    kind = Kind.INVALID
    code = "permission_repeated"
    title = "A permission is named more than once"
    pointer = "/permissions"


class GrantEndedError(DomainError):
    kind = Kind.INVALID
    code = "grant_ended"
    title = "A grant with an end ends in the future"
    pointer = "/permissions"


class ScopeTypeUndeclaredError(DomainError):
    kind = Kind.INVALID
    code = "scope_type_undeclared"
    title = "The module has no such scope type"
    pointer = "/scopes"


class ScopeLimitMalformedError(DomainError):
    kind = Kind.INVALID
    code = "scope_limit_malformed"
    title = "A limit is a currency and an amount in its minor unit"
    pointer = "/scopes"


class MembershipTooLargeError(DomainError):
    kind = Kind.INVALID
    code = "membership_too_large"
    title = "The member would hold more than one record of access can"

    def __init__(self) -> None:
        super().__init__('Name fewer ids in the scopes, or give all of a type with "*".')


def check_grants_to_other(actor: UUID, member: UUID) -> None:
    """Raises OwnGrantError."""
    if actor == member:
        raise OwnGrantError


@dataclass(frozen=True)
class Standing:
    """What a membership is, without its grants."""

    status: MembershipStatus
    superadmin: bool

    @property
    def administers(self) -> bool:
        return self.superadmin and self.status is MembershipStatus.ACTIVE


NOBODY: Final = Standing(MembershipStatus.REMOVED, superadmin=False)


def standing_after(
    current: Standing, *, status: MembershipStatus | None = None, superadmin: bool | None = None, other_admins: int
) -> Standing:
    """The standing after a change; None changes nothing. `other_admins` counts the company's other active superadmins.

    Raises InvitationOpenError, SuperadminInactiveError or LastSuperadminError.
    """
    wanted = Standing(
        current.status if status is None else status, current.superadmin if superadmin is None else superadmin
    )
    if wanted.status is MembershipStatus.REMOVED:
        wanted = NOBODY
    elif current.status is MembershipStatus.INVITED and wanted.status is not MembershipStatus.INVITED:
        raise InvitationOpenError("It can be withdrawn by removing the member.")
    if wanted.superadmin and not current.superadmin and not wanted.administers:
        raise SuperadminInactiveError("Reinstate the member first.")
    check_administered(current, wanted, other_admins=other_admins)
    return wanted


def check_administered(current: Standing, wanted: Standing, *, other_admins: int) -> None:
    """Raises LastSuperadminError if the change would leave the company without an active superadmin."""
    if current.administers and not wanted.administers and other_admins == 0:
        raise LastSuperadminError


Ends = Mapping[str, datetime | None]


def permissions_after(
    current: Ends, wanted: Ends, *, module: str, catalog: Mapping[str, CatalogRow], now: datetime
) -> dict[str, datetime | None]:
    """The permissions of a module after its whole set is replaced: each key with its end, exclusive.

    What stays as it was is not judged again. A key that is taken away or given another end takes along the legacy keys
    that resolve to it, which would give the same (design §5).

    Raises the errors of `normalize_permission_key` and `check_grantable`, PermissionRepeatedError or GrantEndedError.
    """
    after: dict[str, datetime | None] = {}
    for text, valid_until in wanted.items():
        key = text if text in current else normalize_permission_key(text, module)
        if key in after:
            raise PermissionRepeatedError(f"{key!r} is named twice.", key=key)
        after[key] = valid_until
        if key in current and current[key] == valid_until:
            continue
        check_grantable(key, catalog.get(key))
        if valid_until is not None and valid_until <= now:
            raise GrantEndedError(f"{key!r} would end at {valid_until.isoformat()}, which has passed.", key=key)
    changed = {key for key, valid_until in current.items() if key not in after or after[key] != valid_until}
    return {key: valid_until for key, valid_until in after.items() if changed.isdisjoint(_resolved(key, catalog))}


def _resolved(key: str, catalog: Mapping[str, CatalogRow]) -> set[str]:
    """The keys that a legacy key stands for; none for a key that is no alias."""
    found: set[str] = set()
    row = catalog.get(key)
    while row is not None and row.alias_of is not None and row.alias_of not in found:
        found.add(row.alias_of)
        row = catalog.get(row.alias_of)
    return found


def scopes_after(wanted: Scopes, declared: Iterable[str]) -> Scopes:
    """The scopes of a module after they are replaced: each declared type, nothing for one that is not named.

    Raises ScopeTypeUndeclaredError or ScopeLimitMalformedError.
    """
    declared = tuple(declared)
    for scope_type in wanted:
        if scope_type not in declared:
            raise ScopeTypeUndeclaredError(
                f"{scope_type!r} is none of {', '.join(declared)}.", scope_type=scope_type, declared=declared
            )
    after: Scopes = {}
    for scope_type in declared:
        ids = wanted.get(scope_type, ())
        after[scope_type] = ids if ids == "*" else tuple(sorted(set(ids)))
    for limit in after.get(_LIMIT_SCOPE_TYPE, ()):
        if limit != "*" and not _LIMIT.fullmatch(limit):
            raise ScopeLimitMalformedError(f"{limit!r} is not like EUR:500000, which is 5000.00 EUR.", limit=limit)
    return after


def nothing_of(declared: Iterable[str]) -> Scopes:
    """The scopes a module is given with: nothing, until somebody says what."""
    return dict.fromkeys(declared, ())


def scopes_topped_up(current: Scopes | None, declared: Iterable[str], *, is_first: bool) -> Scopes | None:
    """The scopes of a module with a top-up: everything. After the first what somebody narrowed by hand stays narrow.

    None for a module that somebody took away since the first top-up: it stays away with whatever is new in it.
    """
    everything: Scopes = dict.fromkeys(declared, "*")
    if is_first:
        return everything
    return None if current is None else {**everything, **current}


def top_up(module: str, catalog: Mapping[str, CatalogRow], given: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The rows of a module a superadmin is still to be given: active, and never given by a top-up before.

    `given` are (module, key) of earlier top-ups, taken away since or not: once is once.
    """
    seen = set(given)
    return tuple(
        key
        for key, row in sorted(catalog.items())
        if row.status is PermissionStatus.ACTIVE and (module, key) not in seen
    )


def parse_key(key: str) -> tuple[CompanyId, UserId]:
    """Company and person of a key on the topic, in the one form it has. Raises ValueError."""
    company_id, user_id = (UUID(part) for part in key.split("/"))
    if key != f"{company_id}/{user_id}":
        raise ValueError("not the one form of a key")
    return CompanyId(company_id), UserId(user_id)


def grant_changed(
    user_id: UserId,
    standing: Standing,
    modules: Iterable[ModuleGrant] = (),
    delegations: Iterable[Delegation] = (),
) -> GrantChanged:
    """What is published of a membership; equal for equal rows."""
    return GrantChanged(
        user_id=user_id,
        status=standing.status,
        superadmin=standing.superadmin,
        modules=tuple(sorted(modules, key=lambda each: each.key)),
        delegations=tuple(delegations),
    )


def removed(user_id: UserId) -> GrantChanged:
    """What is published of a membership there is not: it gives nothing."""
    return grant_changed(user_id, NOBODY)
