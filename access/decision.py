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
    grant_at,
    has_capability,
    holds,
    is_active,
    opens,
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
    """An answer, and what it was judged by. `reason` is None where the request is allowed.

    It is made for every request, and what it was judged by is read by few: the records are kept as they are stored.
    """

    __slots__ = ("_entitlement", "_grant_at", "_membership", "age_us", "detail", "permissions", "reason")

    def __init__(
        self,
        reason: Reason | None,
        membership: bytes | None = None,
        entitlement: bytes | None = None,
        permissions: PermissionTable | None = None,
        grant_at: int = 0,
        detail: str | None = None,
    ) -> None:
        self.reason = reason
        self._membership = membership
        self._entitlement = entitlement
        #: None where the layers before it already decided.
        self.permissions = permissions
        self._grant_at = grant_at
        #: The scope type of an object out of scope, the missing capability, or why the state is not known.
        self.detail = detail
        #: How old the state judged by was, in microseconds; None where that is not known either.
        self.age_us: int | None = 0

    @property
    def allowed(self) -> bool:
        return self.reason is None

    @property
    def membership(self) -> Membership | None:
        return None if self._membership is None else Membership(self._membership)

    @property
    def entitlement(self) -> Entitlement | None:
        """None where the layers before it already decided."""
        return None if self._entitlement is None else Entitlement(self._entitlement)

    @property
    def grant(self) -> Grant | None:
        """The grant of the required module."""
        return Grant(self._membership, self._grant_at) if self._membership is not None and self._grant_at else None

    def refused(self, reason: Reason, detail: str) -> "Decision":
        """The same judgement with another outcome: what was asked for turned out to be something else."""
        other = Decision(reason, self._membership, self._entitlement, self.permissions, self._grant_at, detail)
        other.age_us = self.age_us
        return other

    def __repr__(self) -> str:
        """For test failures and logs."""
        return f"Decision({'allowed' if self.reason is None else self.reason.value}, detail={self.detail!r})"


QUARANTINED_DETAIL: Final = "its newest state could not be read"


def decide(  # noqa: C901, PLR0911  one answer per layer, in their order
    membership: bytes | None,
    entitlement: bytes | None,
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
    if not is_active(membership):
        return _inactive(membership)
    if entitlement is None:
        return Decision(Reason.BASE_INACTIVE, membership)
    if not opens(entitlement, requirement.module_id, now):
        refused, detail = _entitlement_refusal(Entitlement(entitlement), now)
        return Decision(refused, membership, entitlement, detail=detail)
    if requirement.capability_mark is not None and not has_capability(entitlement, requirement.capability_mark):
        return Decision(Reason.CAPABILITY_MISSING, membership, entitlement, detail=requirement.capability)
    position = grant_at(membership, requirement.module_id)
    if not position:
        return Decision(Reason.MODULE_NOT_GRANTED, membership, entitlement)
    if permissions is None:
        return Decision(Reason.PERMISSION_MISSING, membership, entitlement, None, position)
    if permissions.is_unknown:
        detail = f"permissions: {QUARANTINED_DETAIL}"
        return Decision(Reason.STATE_UNKNOWN, membership, entitlement, permissions, position, detail)
    if not holds(membership, position, permissions.required(requirement.bit), now):
        return Decision(Reason.PERMISSION_MISSING, membership, entitlement, permissions, position)
    if values is not None:
        outside = first_outside(Grant(membership, position).scopes(), requirement.scope_types, values)
        if outside is not None:
            return Decision(Reason.OUT_OF_SCOPE, membership, entitlement, permissions, position, outside)
    return Decision(None, membership, entitlement, permissions, position)


def _entitlement_refusal(entitlement: Entitlement, now: int) -> tuple[Reason, str | None]:
    """Why an entitlement does not open a module."""
    if entitlement.is_unknown:
        return Reason.STATE_UNKNOWN, f"entitlement: {QUARANTINED_DETAIL}"
    if not entitlement.base_is_live(now):
        return Reason.BASE_INACTIVE, None
    return Reason.MODULE_NOT_ENTITLED, None


def decide_active_member(membership: bytes | None) -> Decision:
    """Guard A: any active membership, whatever the company has bought."""
    if membership is None:
        return Decision(Reason.NOT_A_MEMBER)
    return Decision(None, membership) if is_active(membership) else _inactive(membership)


def _inactive(membership: bytes) -> Decision:
    if Membership(membership).is_unknown:
        return Decision(Reason.STATE_UNKNOWN, membership, detail=f"membership: {QUARANTINED_DETAIL}")
    return Decision(Reason.MEMBERSHIP_INACTIVE, membership)


def decide_company_admin(membership: bytes | None) -> Decision:
    """Guard T: a TENANT_SUPERADMIN. The flag opens no module: it never stands in for a permission row."""
    decision = decide_active_member(membership)
    if decision.reason is None and membership is not None and not Membership(membership).superadmin:
        return Decision(Reason.PERMISSION_MISSING, membership)
    return decision


def decide_platform_admin(membership: bytes | None) -> Decision:
    """Guard P: an active membership of the company `platform`, which is the one to be given here.

    Who has none is told that the permission is missing: they asked for no company.
    """
    decision = decide_active_member(membership)
    if decision.reason in {Reason.NOT_A_MEMBER, Reason.MEMBERSHIP_INACTIVE}:
        return Decision(Reason.PERMISSION_MISSING, membership)
    return decision
