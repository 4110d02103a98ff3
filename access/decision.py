"""The decision (design §5): a pure function of records, a request and a time. The first layer that fails is the reason.

The layers, in their order: is there a membership, is it active, is the company's base live, is the module entitled, has
the company the capability, is the module granted, the permission held, the object in scope.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from access.records import (
    MODULE_IDS,
    Entitlement,
    Grant,
    Membership,
    PermissionTable,
    capability_mark,
    permissions_key,
)
from access.scopes import ScopeValue, first_outside
from contracts.permissions import PERMISSIONS
from contracts.problems import Reason


class UnknownPermissionError(Exception):
    """A route requires a key that is in no catalog; it must not start."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a route asks of a grant, worked out once when the route is declared."""

    key: str
    module: str
    module_id: int
    bit: int
    scope_types: tuple[str, ...]
    #: The commercial capability the company needs besides the module, and how the record is searched for it.
    capability: str | None
    capability_mark: bytes | None
    #: Judged by the hard bound of writes, whatever the method.
    administration: bool
    #: Under which the cache holds the module's permission rows.
    permissions_key: bytes

    @classmethod
    def of(cls, key: str) -> "Requirement":
        """The requirement of a permission key. Raises UnknownPermissionError."""
        module = key.partition(".")[0]
        row = PERMISSIONS.get(module, {}).get(key)
        if row is None:
            raise UnknownPermissionError(f"{key!r} is not a permission of the catalog")
        return cls(
            key=key,
            module=module,
            module_id=MODULE_IDS[module],
            bit=row.bit,
            scope_types=row.scope_types,
            capability=row.capability,
            capability_mark=None if row.capability is None else capability_mark(row.capability),
            administration=row.administration,
            permissions_key=permissions_key(module),
        )


class Decision:
    """An answer, and what it was judged by. `reason` is None where the request is allowed."""

    __slots__ = ("age_us", "detail", "entitlement", "grant", "membership", "permissions", "reason")

    def __init__(
        self,
        reason: Reason | None,
        membership: Membership | None = None,
        entitlement: Entitlement | None = None,
        permissions: PermissionTable | None = None,
        grant: Grant | None = None,
        *,
        detail: str | None = None,
    ) -> None:
        self.reason = reason
        self.membership = membership
        #: None where the layers before it already decided.
        self.entitlement = entitlement
        self.permissions = permissions
        #: The grant of the required module.
        self.grant = grant
        #: The scope type of an object out of scope, the missing capability, or why the state is not known.
        self.detail = detail
        #: How old the state judged by was, in microseconds; None where that is not known either.
        self.age_us: int | None = 0

    @property
    def allowed(self) -> bool:
        return self.reason is None

    def __repr__(self) -> str:
        """For test failures and logs."""
        return f"Decision({'allowed' if self.reason is None else self.reason.value}, detail={self.detail!r})"


QUARANTINED_DETAIL: Final = "its newest state could not be read"


def decide(  # noqa: C901, PLR0911  one answer per layer, in their order
    membership: Membership | None,
    entitlement: Entitlement | None,
    permissions: PermissionTable | None,
    requirement: Requirement,
    now: int,
    values: Mapping[str, ScopeValue] | None = None,
) -> Decision:
    """Whether a request is allowed at `now`, in microseconds since 1970.

    None as a record means that the source has none. `values` are those of the object; None where no object is judged.
    """
    if membership is None:
        return Decision(Reason.NOT_A_MEMBER)
    if not membership.is_active:
        return _inactive(membership)
    if entitlement is None:
        return Decision(Reason.BASE_INACTIVE, membership)
    if not entitlement.opens(requirement.module_id, now):
        refused, detail = _entitlement_refusal(entitlement, now)
        return Decision(refused, membership, entitlement, detail=detail)
    if requirement.capability_mark is not None and not entitlement.has_capability(requirement.capability_mark):
        return Decision(Reason.CAPABILITY_MISSING, membership, entitlement, detail=requirement.capability)
    grant = membership.grant(requirement.module_id)
    if grant is None:
        return Decision(Reason.MODULE_NOT_GRANTED, membership, entitlement)
    if permissions is None:
        return Decision(Reason.PERMISSION_MISSING, membership, entitlement, None, grant)
    if permissions.is_unknown:
        return Decision(
            Reason.STATE_UNKNOWN,
            membership,
            entitlement,
            permissions,
            grant,
            detail=f"permissions: {QUARANTINED_DETAIL}",
        )
    if not grant.holds(permissions.required(requirement.bit), now):
        return Decision(Reason.PERMISSION_MISSING, membership, entitlement, permissions, grant)
    if values is not None:
        outside = first_outside(grant.scopes(), requirement.scope_types, values)
        if outside is not None:
            return Decision(Reason.OUT_OF_SCOPE, membership, entitlement, permissions, grant, detail=outside)
    return Decision(None, membership, entitlement, permissions, grant)


def _entitlement_refusal(entitlement: Entitlement, now: int) -> tuple[Reason, str | None]:
    """Why an entitlement does not open a module."""
    if entitlement.is_unknown:
        return Reason.STATE_UNKNOWN, f"entitlement: {QUARANTINED_DETAIL}"
    if not entitlement.base_is_live(now):
        return Reason.BASE_INACTIVE, None
    return Reason.MODULE_NOT_ENTITLED, None


def decide_active_member(membership: Membership | None) -> Decision:
    """Guard A: any active membership, whatever the company has bought."""
    if membership is None:
        return Decision(Reason.NOT_A_MEMBER)
    return Decision(None, membership) if membership.is_active else _inactive(membership)


def _inactive(membership: Membership) -> Decision:
    if membership.is_unknown:
        return Decision(Reason.STATE_UNKNOWN, membership, detail=f"membership: {QUARANTINED_DETAIL}")
    return Decision(Reason.MEMBERSHIP_INACTIVE, membership)


def decide_company_admin(membership: Membership | None) -> Decision:
    """Guard T: a TENANT_SUPERADMIN. The flag opens no module: it never stands in for a permission row."""
    decision = decide_active_member(membership)
    if decision.reason is None and membership is not None and not membership.superadmin:
        return Decision(Reason.PERMISSION_MISSING, membership)
    return decision


def decide_platform_admin(membership: Membership | None) -> Decision:
    """Guard P: an active membership of the company `platform`, which is the one to be given here.

    Who has none is told that the permission is missing: they asked for no company.
    """
    decision = decide_active_member(membership)
    if decision.reason in {Reason.NOT_A_MEMBER, Reason.MEMBERSHIP_INACTIVE}:
        return Decision(Reason.PERMISSION_MISSING, membership)
    return decision
