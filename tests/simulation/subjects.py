"""The few people and companies of a history, what their rows can come to say, and what is asked about them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.events.auth import MembershipStatus, PermissionStatus, SigningKeyStatus
from contracts.events.entitlements import EntitlementStatus
from contracts.identifiers import CompanyId, UserId
from contracts.permissions import PERMISSIONS
from tests.simulation.plan import SUBJECTS
from tests.simulation.truth import (
    Base,
    EntitlementRow,
    GrantedModule,
    MembershipRow,
    PermissionRow,
    PermissionsRow,
    Row,
    SessionsRow,
    SigningKeyRow,
)

MODULE: Final = "finance"
READ: Final = "finance.expenses.read"
WRITE: Final = "finance.expenses.write"
WRITE_LEGACY: Final = "finance.expense.create"
APPROVE: Final = "finance.expenses.approve"
KID: Final = "key-1"
_BRIEFLY: Final = timedelta(seconds=4)
_YEARS: Final = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC))


def _id(number: int) -> UUID:
    return UUID(int=(0x01980000_0000 << 80) | (0x7 << 76) | (0b10 << 62) | number)


COMPANIES: Final = (CompanyId(_id(1)), CompanyId(_id(2)))
#: The last of them is a member of nothing when a history begins.
PEOPLE: Final = (UserId(_id(11)), UserId(_id(12)), UserId(_id(13)))
UNITS: Final = (_id(21), _id(22))
EVENT: Final = _id(31)
SESSION: Final = _id(41)
GENERATIONS: Final = (1, 2)
#: Memberships that are only there to be many.
CROWD: Final = tuple(UserId(_id(100 + number)) for number in range(30))

_PUBLIC_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"signing key of the histories, 32").public_key()


def member_of(number: int) -> tuple[CompanyId, UserId]:
    """Each person is in each company."""
    return COMPANIES[number // len(PEOPLE)], PEOPLE[number % len(PEOPLE)]


def owner_of(subject: str) -> str:
    """Which service's row it is."""
    return "entitlements" if subject == "entitlement" else "auth"


def key_of(subject: str, number: int) -> str:
    """The key of a subject's records."""
    return row_of(subject, number, SUBJECTS[subject][0][0], 1, _YEARS[0]).key


def first_rows() -> Iterator[Row]:
    """What there is before anything happens."""
    for subject, becomes in (
        ("membership", "reader"),
        ("entitlement", "active"),
        ("permissions", "as declared"),
        ("sessions", "no session over"),
        ("signing key", "active"),
    ):
        for number in range(SUBJECTS[subject][1]):
            if subject != "membership" or member_of(number)[1] != PEOPLE[-1]:
                yield row_of(subject, number, becomes, 1, _YEARS[0])


def crowd_row(number: int, version: int) -> MembershipRow:
    """One of the many; nothing is asked about them."""
    return MembershipRow(COMPANIES[0], CROWD[number % len(CROWD)], MembershipStatus.ACTIVE, version=version)


def row_of(subject: str, number: int, becomes: str, version: int, now: datetime) -> Row:
    """A subject's row after a write at `now`."""
    return _ROWS[subject](number, becomes, version, now)


def _membership(number: int, becomes: str, version: int, now: datetime) -> Row:
    company, user = member_of(number)
    everywhere: dict[str, object] = {"business_unit": "*", "event": "*"}

    def finance(permissions: Mapping[str, datetime | None], scopes: Mapping[str, object]) -> dict[str, GrantedModule]:
        return {MODULE: GrantedModule(permissions, scopes)}  # type: ignore[arg-type]

    modules: Mapping[str, Mapping[str, GrantedModule]] = {
        "reader": finance({READ: None}, everywhere),
        "writer by a legacy key": finance({READ: None, WRITE_LEGACY: None}, everywhere),
        "approver of one unit": finance(
            {READ: None, APPROVE: None},
            {"business_unit": (str(UNITS[0]),), "event": "*", "approval_limit": ("USD:500000",)},
        ),
        "reader for 4 s": finance({READ: now + _BRIEFLY}, everywhere),
        "another module": {"promoter": GrantedModule({}, everywhere)},  # type: ignore[arg-type]
        "no scope": finance({READ: None, WRITE: None}, {"event": "*"}),
        "superadmin": finance({READ: None}, everywhere),
        "suspended": finance({READ: None, WRITE: None}, everywhere),
    }
    status = {"removed": MembershipStatus.REMOVED, "suspended": MembershipStatus.SUSPENDED}
    return MembershipRow(
        company,
        user,
        status.get(becomes, MembershipStatus.ACTIVE),
        superadmin=becomes == "superadmin",
        modules=modules.get(becomes, {}),
        version=version,
    )


def _entitlement(number: int, becomes: str, version: int, now: datetime) -> Row:
    status = {
        "ended": EntitlementStatus.ENDED,
        "suspended": EntitlementStatus.SUSPENDED,
        "past due for 4 s": EntitlementStatus.PAST_DUE,
    }.get(becomes, EntitlementStatus.ACTIVE)
    until = now + _BRIEFLY if becomes == "past due for 4 s" else None
    base = "venue" if becomes == "another base" else "promoter"
    return EntitlementRow(
        COMPANIES[number],
        status,
        Base(base, status, until),
        {base: until} if becomes == "add-on ended" else {base: until, MODULE: until},
        version=version,
    )


def _permissions(_: int, becomes: str, version: int, __: datetime) -> Row:
    removed = {"reading removed": READ, "legacy removed": WRITE_LEGACY, "writing removed": WRITE}.get(becomes)
    return PermissionsRow(
        MODULE,
        {
            row.key: PermissionRow(
                PermissionStatus.REMOVED if row.key == removed else PermissionStatus(row.status.value), row.alias_of
            )
            for row in PERMISSIONS[MODULE].values()
        },
        version=version,
    )


def _sessions(number: int, becomes: str, version: int, _: datetime) -> Row:
    return SessionsRow(
        PEOPLE[number],
        min_gen=GENERATIONS[1] if becomes == "next generation" else GENERATIONS[0],
        revoked={SESSION: _YEARS[1]} if becomes == "one session over" else {},
        version=version,
    )


def _signing_key(_: int, becomes: str, version: int, __: datetime) -> Row:
    return SigningKeyRow(KID, _PUBLIC_KEY.public_bytes_raw(), SigningKeyStatus(becomes), *_YEARS, version=version)


_ROWS: Final[Mapping[str, Callable[[int, str, int, datetime], Row]]] = {
    "membership": _membership,
    "entitlement": _entitlement,
    "permissions": _permissions,
    "sessions": _sessions,
    "signing key": _signing_key,
}


class FutureStatus:
    """Of a row that a newer version of its owner wrote: readers of today do not know its status."""

    def payload(self) -> Any:
        return super().payload().model_copy(update={"status": "on_leave"})  # type: ignore[misc]  # of the row beside it


class FutureMembershipRow(FutureStatus, MembershipRow):
    pass


class FutureEntitlementRow(FutureStatus, EntitlementRow):
    pass


class FutureSigningKeyRow(FutureStatus, SigningKeyRow):
    pass


_FUTURE: Final = {
    MembershipRow: FutureMembershipRow,
    EntitlementRow: FutureEntitlementRow,
    SigningKeyRow: FutureSigningKeyRow,
}


def has_future(row: Row) -> bool:
    """Whether the row has a status that could be one of the future."""
    return type(row) in _FUTURE


def is_of_the_future(row: object) -> bool:
    """Whether readers of today do not know what it says."""
    return isinstance(row, FutureStatus)


def of_the_future(row: Row) -> Row:
    """The row with a status of the future. Raises KeyError where it has no status."""
    future: type[Row] = _FUTURE[type(row)]
    return future(**{each.name: getattr(row, each.name) for each in fields(row)})
