"""What is so, said from database rows: an evaluator that knows no cache, no bitmask and no record of the access path.

Rows are as an owner's database has them: frozen, each with the version of its last write, in the words of the
contracts. `Truth` answers from them sentence by sentence as design §5 is written, so that an error in the fast code is
not repeated here. The same rows make the events the owner would publish, and the documents of `access.digest`.

What is drawn is drawn from the `random.Random` that is given, and from nothing else.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Any, ClassVar, Final, Literal
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.events.auth import (
    Delegation,
    GrantChanged,
    MembershipStatus,
    ModuleGrant,
    PermissionsChanged,
    PermissionState,
    PermissionStatus,
    RevokedSession,
    SessionsChanged,
    SigningKeyChanged,
    SigningKeyStatus,
)
from contracts.events.entitlements import (
    BaseEntitlement,
    EntitlementChanged,
    EntitlementStatus,
    ModuleEntitlement,
)
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId
from contracts.permissions import PERMISSIONS
from contracts.problems import Reason
from contracts.services import BASE_MODULES, MODULES
from contracts.topics import TOPICS, Topic

#: What the drawn signing keys are vouched for with.
ROOT_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"root key of the histories, 32 by")

Scopes = Mapping[str, Literal["*"] | tuple[str, ...]]
ScopeValues = Mapping[str, UUID | str | None]
Document = Mapping[str, Any]

_TOPICS: Final[Mapping[str, Topic]] = {topic.name: topic for topic in TOPICS}
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds_of(instant: datetime) -> int:
    """An instant as microseconds since 1970."""
    return (instant - _BEGINNING) // _MICROSECOND


# Rows.


@dataclass(frozen=True)
class GrantedModule:
    """A module a member was given. `permissions` says until when each is held, exclusive; none is without end."""

    permissions: Mapping[str, datetime | None]
    scopes: Scopes


@dataclass(frozen=True)
class DelegationRow:
    """What a member may pass on in one module."""

    module: str
    permissions: Literal["*"] | tuple[str, ...]
    scopes: Scopes
    may_delegate: bool
    valid_until: datetime | None


@dataclass(frozen=True)
class MembershipRow:
    """A person in a company, with all that hangs on it."""

    topic: ClassVar[Topic] = _TOPICS["auth.memberships.v1"]

    company_id: CompanyId
    user_id: UserId
    status: MembershipStatus
    superadmin: bool = False
    modules: Mapping[str, GrantedModule] = field(default_factory=dict)
    delegations: tuple[DelegationRow, ...] = ()
    version: int = 1

    @property
    def key(self) -> str:
        return f"{self.company_id}/{self.user_id}"

    def payload(self) -> GrantChanged:
        return GrantChanged(
            user_id=self.user_id,
            status=self.status,
            superadmin=self.superadmin,
            modules=tuple(
                ModuleGrant(key=module, permissions=dict(granted.permissions), scopes=dict(granted.scopes))
                for module, granted in self.modules.items()
            ),
            delegations=tuple(
                Delegation(
                    module=each.module,
                    permissions=each.permissions,
                    scopes=dict(each.scopes),
                    may_delegate=each.may_delegate,
                    valid_until=each.valid_until,
                )
                for each in self.delegations
            ),
        )


@dataclass(frozen=True)
class Base:
    """The base module of a company."""

    module: str
    status: EntitlementStatus
    valid_until: datetime | None


@dataclass(frozen=True)
class EntitlementRow:
    """What a company has bought. `modules` says until when each is entitled, the base among them."""

    topic: ClassVar[Topic] = _TOPICS["entitlements.companies.v1"]

    company_id: CompanyId
    status: EntitlementStatus
    base: Base | None
    modules: Mapping[str, datetime | None]
    capabilities: tuple[str, ...] = ()
    version: int = 1

    @property
    def key(self) -> str:
        return str(self.company_id)

    def payload(self) -> EntitlementChanged:
        base = self.base
        return EntitlementChanged(
            status=self.status,
            base=None
            if base is None
            else BaseEntitlement(module=base.module, status=base.status, valid_until=base.valid_until),
            modules=tuple(ModuleEntitlement(key=key, valid_until=until) for key, until in self.modules.items()),
            capabilities=self.capabilities,
        )


@dataclass(frozen=True)
class PermissionRow:
    """The state of one key of the catalog."""

    status: PermissionStatus
    alias_of: str | None


@dataclass(frozen=True)
class PermissionsRow:
    """The permission rows of a module, which are published together."""

    topic: ClassVar[Topic] = _TOPICS["auth.permissions.v1"]
    company_id: ClassVar[CompanyId] = PLATFORM_COMPANY_ID

    module: str
    rows: Mapping[str, PermissionRow]
    version: int = 1

    @property
    def key(self) -> str:
        return self.module

    def payload(self) -> PermissionsChanged:
        return PermissionsChanged(
            module=self.module,
            permissions=tuple(
                PermissionState(key=key, status=row.status, alias_of=row.alias_of) for key, row in self.rows.items()
            ),
        )


@dataclass(frozen=True)
class SigningKeyRow:
    """A key that signs access tokens, by its public half."""

    topic: ClassVar[Topic] = _TOPICS["auth.signing-keys.v1"]
    company_id: ClassVar[CompanyId] = PLATFORM_COMPANY_ID

    kid: str
    public_key: bytes
    status: SigningKeyStatus
    not_before: datetime
    not_after: datetime
    version: int = 1

    @property
    def key(self) -> str:
        return self.kid

    def payload(self) -> SigningKeyChanged:
        return _signed(self)


@lru_cache(maxsize=256)
def _signed(row: SigningKeyRow) -> SigningKeyChanged:
    unsigned = SigningKeyChanged(
        kid=row.kid,
        algorithm="EdDSA",
        public_key=_base64url(row.public_key),
        not_before=row.not_before,
        not_after=row.not_after,
        status=row.status,
        signature="A" * 86,
    )
    return unsigned.model_copy(update={"signature": _base64url(ROOT_KEY.sign(unsigned.signed_bytes()))})


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class SessionsRow:
    """Which of a person's tokens are void. `revoked` says until when each ended session is listed."""

    topic: ClassVar[Topic] = _TOPICS["auth.sessions.v1"]
    company_id: ClassVar[CompanyId] = PLATFORM_COMPANY_ID

    user_id: UserId
    min_gen: int
    revoked: Mapping[UUID, datetime]
    version: int = 1

    @property
    def key(self) -> str:
        return str(self.user_id)

    def payload(self) -> SessionsChanged:
        return SessionsChanged(
            user_id=self.user_id,
            min_gen=self.min_gen,
            revoked=tuple(RevokedSession(sid=sid, until=until) for sid, until in self.revoked.items()),
        )


Row = MembershipRow | EntitlementRow | PermissionsRow | SigningKeyRow | SessionsRow


# Answers.


class Truth:
    """The rows of the owners at one moment, and the answers that follow from them. None is yes."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.memberships: dict[tuple[UUID, UUID], MembershipRow] = {}
        self.entitlements: dict[UUID, EntitlementRow] = {}
        self.permissions: dict[str, Mapping[str, PermissionRow]] = {}
        self.signing_keys: dict[str, SigningKeyRow] = {}
        self.sessions: dict[UUID, SessionsRow] = {}
        for row in rows:
            self.take(row)

    def take(self, row: Row) -> None:
        """Have a row, in place of the one there was of the same key."""
        match row:
            case MembershipRow():
                self.memberships[row.company_id, row.user_id] = row
            case EntitlementRow():
                self.entitlements[row.company_id] = row
            case PermissionsRow():
                self.permissions[row.module] = row.rows
            case SigningKeyRow():
                self.signing_keys[row.kid] = row
            case SessionsRow():
                self.sessions[row.user_id] = row

    def answer(  # noqa: PLR0911  one sentence per layer
        self, company_id: UUID, user_id: UUID, permission_key: str, values: ScopeValues | None, now: datetime
    ) -> Reason | None:
        """Why the person may not use the permission in the company now, or None where they may.

        `values` are those of the object; None where no object is judged. The key is one of the contracts.
        """
        module = permission_key.partition(".")[0]
        declared = PERMISSIONS[module][permission_key]
        # Without a membership the answer is `not_a_member`, the same for companies nobody knows.
        membership = self.memberships.get((company_id, user_id))
        if membership is None:
            return Reason.NOT_A_MEMBER
        if membership.status != MembershipStatus.ACTIVE:
            return Reason.MEMBERSHIP_INACTIVE
        # The company and its base are entitled, the base until its end.
        entitlement = self.entitlements.get(company_id)
        if entitlement is None or not _is_entitled(entitlement.status):
            return Reason.BASE_INACTIVE
        base = entitlement.base
        if base is None or not _is_entitled(base.status) or not _lasts(base.valid_until, now):
            return Reason.BASE_INACTIVE
        # A module is entitled if it is among those of the company, until its end.
        if module not in entitlement.modules or not _lasts(entitlement.modules[module], now):
            return Reason.MODULE_NOT_ENTITLED
        if declared.capability is not None and declared.capability not in entitlement.capabilities:
            return Reason.CAPABILITY_MISSING
        granted = membership.modules.get(module)
        if granted is None:
            return Reason.MODULE_NOT_GRANTED
        # It is enough to hold one key, not yet over, that is the one asked for or resolves to it.
        rows = self.permissions.get(module, {})
        if not any(
            _lasts(valid_until, now) and permission_key in way_of(held, rows)
            for held, valid_until in granted.permissions.items()
        ):
            return Reason.PERMISSION_MISSING
        if values is not None and not all(
            _is_inside(granted.scopes, scope_type, values) for scope_type in declared.scope_types
        ):
            return Reason.OUT_OF_SCOPE
        return None

    def answer_active_member(self, company_id: UUID, user_id: UUID) -> Reason | None:
        """Guard A: any active membership, whatever the company has bought."""
        membership = self.memberships.get((company_id, user_id))
        if membership is None:
            return Reason.NOT_A_MEMBER
        return None if membership.status == MembershipStatus.ACTIVE else Reason.MEMBERSHIP_INACTIVE

    def answer_company_admin(self, company_id: UUID, user_id: UUID) -> Reason | None:
        """Guard T: an active membership that is superadmin."""
        reason = self.answer_active_member(company_id, user_id)
        if reason is None and not self.memberships[company_id, user_id].superadmin:
            return Reason.PERMISSION_MISSING
        return reason

    def answer_platform_admin(self, user_id: UUID) -> Reason | None:
        """Guard P: an active membership of the company `platform`."""
        reason = self.answer_active_member(PLATFORM_COMPANY_ID, user_id)
        return None if reason is None else Reason.PERMISSION_MISSING

    def session_is_live(self, user_id: UUID, session_id: UUID, generation: int) -> bool:
        """A token is void if its generation is below `min_gen` or its session is listed."""
        sessions = self.sessions.get(user_id)
        if sessions is None:
            return True
        return not (generation < sessions.min_gen or session_id in sessions.revoked)

    def key_verifies(self, kid: str, now: datetime) -> bool:
        """Whether tokens signed with the key are to be believed: active or retired, and in its time."""
        key = self.signing_keys.get(kid)
        if key is None or key.status not in {SigningKeyStatus.ACTIVE, SigningKeyStatus.RETIRED}:
            return False
        return key.not_before <= now < key.not_after


def _lasts(valid_until: datetime | None, now: datetime) -> bool:
    """An end is exclusive, and none is no end."""
    return valid_until is None or now < valid_until


def _is_entitled(status: EntitlementStatus) -> bool:
    """Past due is entitled until its end, which is the base's."""
    return status in {EntitlementStatus.TRIALING, EntitlementStatus.ACTIVE, EntitlementStatus.PAST_DUE}


def way_of(held: str, rows: Mapping[str, PermissionRow]) -> list[str]:
    """What holding a key gives: itself and each key its aliases lead to, as far as they are active.

    Nothing, if one on the way is removed or not there, or the last is not active: revoking a key removes every key that
    resolves to it. Nothing either, if the way has no end.
    """
    way: list[str] = []
    key: str | None = held
    while key is not None:
        if key in way or key not in rows or rows[key].status == PermissionStatus.REMOVED:
            return []
        way.append(key)
        key = rows[key].alias_of
    if rows[way[-1]].status != PermissionStatus.ACTIVE:
        return []
    return [key for key in way if rows[key].status == PermissionStatus.ACTIVE]


def _is_inside(scopes: Scopes, scope_type: str, values: ScopeValues) -> bool:
    """Whether an object is inside one scope type: "*" is all, an empty list and an absent type are nothing."""
    allowed = scopes.get(scope_type, ())
    if allowed == "*":
        return True
    value = values.get(scope_type)
    if value is None:
        return False
    if scope_type == "approval_limit":
        # Entries are limits, one per currency, in minor units.
        return any(_is_within(str(value), limit) for limit in allowed)
    return str(value) in allowed


def _is_within(amount: str, limit: str) -> bool:
    asked, most = _money(amount), _money(limit)
    return asked is not None and most is not None and asked[0] == most[0] and asked[1] <= most[1]


def _money(text: str) -> tuple[str, int] | None:
    """Currency and minor units of "EUR:500000", of 18 digits at most; None for anything else."""
    currency, _, digits = text.partition(":")
    if len(currency) != 3 or not all("A" <= letter <= "Z" for letter in currency):
        return None
    if not 1 <= len(digits) <= 18 or not all("0" <= digit <= "9" for digit in digits):
        return None
    return currency, int(digits)


# Documents, by the rules in access.digest's own words.


def documents(
    rows: Iterable[Row], *, epoch: int = 1, modules: Iterable[str] = MODULES
) -> Iterator[tuple[str, str, Document]]:
    """Kind, key and document of each row, as a cache that keeps these modules has it of a source in this epoch."""
    kept = set(modules)
    for row in rows:
        kind, said = _said(row, kept)
        yield kind, row.key, {"epoch": epoch, "version": row.version, **said}


def _said(row: Row, kept: set[str]) -> tuple[str, dict[str, Any]]:
    match row:
        case MembershipRow():
            return "membership", _membership_document(row, kept)
        case EntitlementRow():
            return "entitlement", _entitlement_document(row)
        case PermissionsRow():
            catalog = PERMISSIONS.get(row.module, {})
            states = {
                key: [str(state.status), "?" if state.alias_of and state.alias_of not in catalog else state.alias_of]
                for key, state in row.rows.items()
                if key in catalog
            }
            return "permissions", {"rows": states}
        case SigningKeyRow():
            return "signing_key", {
                "status": str(row.status),
                "public_key": row.public_key.hex(),
                "not_before": microseconds_of(row.not_before),
                "not_after": microseconds_of(row.not_after),
            }
        case SessionsRow():
            revoked = {str(sid): microseconds_of(until) for sid, until in row.revoked.items()}
            return "sessions", {"min_gen": row.min_gen, "revoked": revoked}


def _membership_document(row: MembershipRow, kept: set[str]) -> dict[str, Any]:
    delegations = [
        {
            "module": each.module,
            "permissions": "*" if each.permissions == "*" else sorted(_known(each.module, each.permissions)),
            "scopes": _scopes_document(each.scopes),
            "may_delegate": each.may_delegate,
            "valid_until": _end_document(each.valid_until),
        }
        for each in row.delegations
        if each.module in kept
    ]
    return {
        "status": str(row.status),
        "superadmin": row.superadmin,
        "modules": {
            module: {
                "permissions": {
                    key: _end_document(granted.permissions[key]) for key in _known(module, granted.permissions)
                },
                "scopes": _scopes_document(granted.scopes),
            }
            for module, granted in row.modules.items()
            if module in kept
        },
        "delegations": sorted(
            delegations,
            key=lambda each: json.dumps(each, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
        ),
    }


def _entitlement_document(row: EntitlementRow) -> dict[str, Any]:
    base = row.base
    return {
        "status": str(row.status),
        "base": None
        if base is None
        else {"module": base.module, "status": str(base.status), "valid_until": _end_document(base.valid_until)},
        "modules": {module: _end_document(until) for module, until in row.modules.items() if module in MODULES},
        "capabilities": sorted(set(row.capabilities)),
    }


def _end_document(valid_until: datetime | None) -> int | None:
    return None if valid_until is None else microseconds_of(valid_until)


def _scopes_document(scopes: Scopes) -> dict[str, Any]:
    return {name: value if value == "*" else sorted(set(value)) for name, value in scopes.items() if value}


def _known(module: str, keys: Iterable[str]) -> list[str]:
    """Keys that are in no catalog are left out."""
    return [key for key in dict.fromkeys(keys) if key in PERMISSIONS.get(module, {})]


# What is drawn.

#: A module and keys that a newer version of the sources may know.
_FUTURE_MODULE: Final = "lighting"
_FUTURE_KEY: Final = "finance.forecasts.read"
_FAR: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
_CAPABILITIES: Final = tuple(
    sorted({row.capability for rows in PERMISSIONS.values() for row in rows.values() if row.capability})
)
_SCOPE_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    module: tuple(dict.fromkeys(name for row in rows.values() for name in row.scope_types))
    for module, rows in PERMISSIONS.items()
}
#: Keys a route can ask for: a legacy key of another first part is none of them.
_ASKED: Final[Mapping[str, tuple[str, ...]]] = {
    module: tuple(key for key in rows if key.split(".")[0] == module) for module, rows in PERMISSIONS.items()
}
_PERMISSION_STATUSES: Final = (PermissionStatus.ACTIVE, PermissionStatus.DEPRECATED, PermissionStatus.REMOVED)
_SCOPE_IDS: Final = (
    *(str(UUID(int=number, version=4)) for number in range(1, 7)),
    # The same object to a person, another text to a comparison.
    str(UUID(int=0xABCDEF, version=4)),
    str(UUID(int=0xABCDEF, version=4)).upper(),
    "main-hall",
    "main-hall.2",
    "a" * 120,
)
_LIMITS: Final = (
    "EUR:500000",
    "EUR:0",
    "USD:20000",
    "USD:999999999999999999",
    "JPY:0000100",
    # None of these is a limit.
    "EUR",
    "EUR:",
    "EUR:-1",
    "EURO:100",
    "CHF:1e6",
    "USD:9999999999999999999",
)
_AMOUNTS: Final = (
    "EUR:0",
    "EUR:499999",
    "EUR:500000",
    "EUR:500001",
    "USD:20000",
    "USD:20001",
    "USD:9999999999999999999",
    "JPY:100",
    "JPY:101",
    "eur:1",
    "EUR:1 ",
    "EUR:\u0661",  # a digit, but not of ASCII
    "100",
)
#: Where ends lie around the time of a world. The first three are over by then.
_OFFSETS: Final = (
    timedelta(days=-40),
    timedelta(microseconds=-1),
    timedelta(0),
    timedelta(microseconds=1),
    timedelta(seconds=1),
    timedelta(minutes=3),
    timedelta(days=40),
    timedelta(days=400),
)


@dataclass(frozen=True)
class Question:
    """May this person use this permission, in this company, on an object with these values?"""

    company_id: CompanyId
    user_id: UserId
    permission_key: str
    values: ScopeValues | None


def draw_id(random: Random) -> UUID:
    """An id of the form every id has, uuid7."""
    return UUID(int=random.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def draw_rows(random: Random, at: datetime, *, companies: int = 3, people: int = 8) -> list[Row]:
    """What owners may hold around a time: every kind of row, most of them of somebody who may do something."""
    company_ids = [CompanyId(draw_id(random)) for _ in range(companies)]
    user_ids = [UserId(draw_id(random)) for _ in range(people)]
    rows: list[Row] = [draw_permissions(random, module) for module in PERMISSIONS if random.random() < 0.97]
    rows += [draw_entitlement(random, company, at) for company in company_ids if random.random() < 0.97]
    rows += [
        draw_membership(random, company, user, at)
        for company in company_ids
        for user in user_ids
        if random.random() < 0.97
    ]
    rows += [
        draw_membership(random, PLATFORM_COMPANY_ID, user, at)
        for user in user_ids[: people // 4]
        if random.random() < 0.5
    ]
    rows += [draw_sessions(random, user, at) for user in user_ids if random.random() < 0.6]
    rows += [draw_signing_key(random, f"key-{number}", at) for number in range(random.randint(1, 3))]
    return rows


def draw_successor(random: Random, row: Row, at: datetime) -> Row:
    """What the row may be after its next write: sometimes one thing about it changed, sometimes all."""
    drawn: Row
    kept: dict[str, Any]
    match row:
        case MembershipRow():
            drawn = draw_membership(random, row.company_id, row.user_id, at)
            kept = random.choice(
                [
                    {},
                    {"modules": row.modules, "delegations": row.delegations},
                    {"status": row.status, "superadmin": row.superadmin},
                    {"status": row.status, "superadmin": row.superadmin, "modules": _with_one_changed(random, row, at)},
                ]
            )
            drawn = replace(drawn, **kept)
        case EntitlementRow():
            drawn = draw_entitlement(random, row.company_id, at)
            kept = random.choice(
                [
                    {},
                    {"modules": row.modules, "capabilities": row.capabilities},
                    {"status": row.status, "base": row.base},
                    {"status": row.status, "base": row.base, "modules": row.modules},
                ]
            )
            drawn = replace(drawn, **kept)
        case PermissionsRow():
            drawn = draw_permissions(random, row.module)
        case SigningKeyRow():
            drawn = replace(draw_signing_key(random, row.kid, at), public_key=row.public_key)
        case SessionsRow():
            drawn = draw_sessions(random, row.user_id, at)
            drawn = replace(drawn, min_gen=max(row.min_gen, drawn.min_gen), revoked={**row.revoked, **drawn.revoked})
    return replace(drawn, version=row.version + 1)


def _with_one_changed(random: Random, row: MembershipRow, at: datetime) -> Mapping[str, GrantedModule]:
    """One permission taken away, or its end moved, as most writes do."""
    held = [module for module, granted in row.modules.items() if granted.permissions]
    if not held:
        return row.modules
    module = random.choice(held)
    granted = row.modules[module]
    permissions = dict(granted.permissions)
    key = random.choice(list(permissions))
    if random.random() < 0.6:
        del permissions[key]
    else:
        permissions[key] = _draw_end(random, at)
    return {**row.modules, module: replace(granted, permissions=permissions)}


def draw_membership(random: Random, company_id: CompanyId, user_id: UserId, at: datetime) -> MembershipRow:
    status = MembershipStatus.ACTIVE
    if random.random() < 0.06:
        status = random.choice([MembershipStatus.INVITED, MembershipStatus.SUSPENDED, MembershipStatus.REMOVED])
    granted = [module for module in (*PERMISSIONS, _FUTURE_MODULE) if random.random() < 0.85]
    random.shuffle(granted)
    delegated = random.choices([*PERMISSIONS, _FUTURE_MODULE], k=random.choice([0, 0, 0, 1, 3]))
    return MembershipRow(
        company_id=company_id,
        user_id=user_id,
        status=status,
        superadmin=random.random() < 0.3,
        modules={module: _draw_granted(random, module, at) for module in granted},
        delegations=tuple(_draw_delegation(random, module, at) for module in delegated),
    )


def _draw_granted(random: Random, module: str, at: datetime) -> GrantedModule:
    keys = [*PERMISSIONS.get(module, {}), _FUTURE_KEY]
    share = random.choice([0.0, 0.3, 0.6, 0.9, 1.0])
    permissions = {key: _draw_end(random, at) for key in keys if random.random() < share}
    return GrantedModule(permissions, _draw_scopes(random, module))


def _draw_delegation(random: Random, module: str, at: datetime) -> DelegationRow:
    keys = [*PERMISSIONS.get(module, {}), _FUTURE_KEY]
    some = tuple(random.sample(keys, random.randint(0, min(4, len(keys)))))
    permissions: Literal["*"] | tuple[str, ...] = "*" if random.random() < 0.3 else some
    return DelegationRow(
        module, permissions, _draw_scopes(random, module), random.random() < 0.5, _draw_end(random, at)
    )


def _draw_scopes(random: Random, module: str) -> Scopes:
    scopes: dict[str, Literal["*"] | tuple[str, ...]] = {}
    for name in (*_SCOPE_TYPES.get(module, ()), "warehouse"):
        kind = random.random()
        pool = _LIMITS if name == "approval_limit" else _SCOPE_IDS
        if kind < 0.45:
            scopes[name] = "*"
        elif kind < 0.92:
            scopes[name] = tuple(random.choices(pool, k=random.randint(1, 5)))
        elif kind < 0.96:
            scopes[name] = ()
    return scopes


def draw_entitlement(random: Random, company_id: CompanyId, at: datetime) -> EntitlementRow:
    base = random.choice(BASE_MODULES)
    held = {module for module in (*MODULES, _FUTURE_MODULE) if random.random() < 0.85}
    # Core lists the base among the modules; a state in which it is not there must be read as it stands.
    held = held | {base} if random.random() < 0.95 else held - {base}
    modules = sorted(held)
    random.shuffle(modules)
    end = _draw_end(random, at)
    return EntitlementRow(
        company_id=company_id,
        status=_draw_entitlement_status(random),
        base=None if random.random() < 0.03 else Base(base, _draw_entitlement_status(random), end),
        modules={module: _draw_end(random, at) if random.random() < 0.5 else end for module in modules},
        capabilities=tuple(
            random.sample([*_CAPABILITIES, "live_ticket_sales_archive"], random.randint(0, len(_CAPABILITIES) + 1))
        ),
    )


def _draw_entitlement_status(random: Random) -> EntitlementStatus:
    if random.random() < 0.98:
        return random.choice([EntitlementStatus.ACTIVE, EntitlementStatus.TRIALING, EntitlementStatus.PAST_DUE])
    return random.choice([EntitlementStatus.NONE, EntitlementStatus.SUSPENDED, EntitlementStatus.ENDED])


def draw_permissions(random: Random, module: str) -> PermissionsRow:
    """The rows of a module: as the contracts declare them, or with other aliases and statuses here and there."""
    rows = {
        key: PermissionRow(PermissionStatus(declared.status.value), declared.alias_of)
        for key, declared in PERMISSIONS.get(module, {}).items()
    }
    share = random.choice([0.0, 0.2, 0.6])
    keys = list(rows)
    for key in keys:
        if random.random() >= share:
            continue
        match random.randrange(4):
            case 0:
                del rows[key]
            case 1:
                rows[key] = replace(rows[key], status=random.choice(_PERMISSION_STATUSES))
            case _:
                # To a neighbour, so that longer ways and circles come about, or to a key nobody knows.
                alias = _FUTURE_KEY if random.random() < 0.05 else random.choice(keys)
                rows[key] = PermissionRow(random.choice(_PERMISSION_STATUSES), alias)
    return PermissionsRow(module, rows)


def draw_signing_key(random: Random, kid: str, at: datetime) -> SigningKeyRow:
    private_key = Ed25519PrivateKey.from_private_bytes(random.randbytes(32))
    return SigningKeyRow(
        kid=kid,
        public_key=private_key.public_key().public_bytes_raw(),
        status=random.choice([SigningKeyStatus.ACTIVE, SigningKeyStatus.RETIRED, SigningKeyStatus.REVOKED]),
        not_before=at + random.choice(_OFFSETS[:4]),
        not_after=at + random.choice(_OFFSETS[3:]),
    )


def draw_sessions(random: Random, user_id: UserId, at: datetime) -> SessionsRow:
    return SessionsRow(
        user_id=user_id,
        min_gen=random.randint(0, 4),
        revoked={draw_id(random): at + random.choice(_OFFSETS) for _ in range(random.randint(0, 3))},
    )


def _draw_end(random: Random, at: datetime) -> datetime | None:
    kind = random.random()
    if kind < 0.6:
        return None
    return _FAR if kind < 0.63 else at + random.choice(_OFFSETS if kind < 0.7 else _OFFSETS[3:])


def draw_instants(random: Random, at: datetime, count: int) -> list[datetime]:
    """Times to ask at: most of them the end of something that was drawn around `at`, or a microsecond beside one."""
    return [
        at
        + random.choice(_OFFSETS[1:-1])
        + random.choice([-_MICROSECOND, timedelta(0), timedelta(0), _MICROSECOND, timedelta(seconds=2)])
        for _ in range(count)
    ]


class Asking:
    """Draws questions about one set of rows."""

    def __init__(self, random: Random, truth: Truth) -> None:
        self._random = random
        self._truth = truth
        self._memberships = [(row.company_id, row.user_id) for row in truth.memberships.values()]
        self._modules = list(PERMISSIONS)

    def member(self) -> tuple[CompanyId, UserId]:
        """A company and a person who is its member, or another company's, or nobody's."""
        random = self._random
        company, user = random.choice(self._memberships)
        if random.random() < 0.1:
            company = random.choice(
                (random.choice(self._memberships)[0], PLATFORM_COMPANY_ID, CompanyId(draw_id(random)))
            )
        if random.random() < 0.03:
            user = UserId(draw_id(random))
        return company, user

    def question(self) -> Question:
        random = self._random
        (company, user), module = self.member(), random.choice(self._modules)
        key = random.choice(_ASKED[module])
        return Question(company, user, key, self._values(company, user, module, key))

    def _values(self, company: CompanyId, user: UserId, module: str, key: str) -> ScopeValues | None:
        random = self._random
        if random.random() < 0.3:
            return None
        membership = self._truth.memberships.get((company, user))
        granted = None if membership is None else membership.modules.get(module)
        values: dict[str, UUID | str | None] = {}
        for name in PERMISSIONS[module][key].scope_types:
            kind = random.random()
            allowed = () if granted is None else granted.scopes.get(name, ())
            pool = _AMOUNTS if name == "approval_limit" else _SCOPE_IDS
            if kind < 0.7 and allowed and allowed != "*":
                values[name] = random.choice(allowed)
            elif kind < 0.95:
                text = random.choice(pool)
                values[name] = UUID(text) if len(text) == 36 and kind < 0.8 else text
            elif kind < 0.98:
                values[name] = None
        if random.random() < 0.05:
            values["warehouse"] = "elsewhere"
        return values

    def kid(self) -> str:
        random = self._random
        return random.choice([*self._truth.signing_keys, "key-0", "nobody's"])

    def session(self) -> tuple[UserId, UUID, int]:
        """A person, one of their sessions and a generation."""
        random = self._random
        _, user = self.member()
        known = self._truth.sessions.get(user)
        revoked = [] if known is None else list(known.revoked)
        return (
            user,
            random.choice(revoked) if revoked and random.random() < 0.5 else draw_id(random),
            random.randint(0, 5),
        )
