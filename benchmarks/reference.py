"""The reference membership of design §9, and as many people who have one as are asked for.

Design §9 says 27 permissions, 2 scope ids and 1.2 KB. As the contracts write an event, 27 of the shortest keys of the
catalog make 1.4 KB; the permissions count.

Person number n is the same in every log, cache and question: company n modulo the number of companies, so that records
that lie side by side in a cache do not come one after the other in a log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final
from uuid import UUID

from contracts.envelope import encode, envelop
from contracts.events.auth import GrantChanged, MembershipStatus, ModuleGrant, Scopes
from contracts.identifiers import CompanyId, UserId
from contracts.permissions import PERMISSIONS

#: The module whose cache is measured; of its permissions one that everybody has, and one that nobody has.
MODULE: Final = "finance"
PERMISSION: Final = "finance.expenses.read"
MISSING_PERMISSION: Final = "finance.ticketing.import"
PEOPLE_PER_COMPANY: Final = 100

_COMPANY, _USER, _EVENT, _CORRELATION, _BUSINESS_UNIT, _SHOW = range(6)
_BASE: Final = "venue"
_BASE_PERMISSIONS: Final = 18
_MODULE_PERMISSIONS: Final = 9


def _text(kind: int, number: int, random: str) -> str:
    """A uuid7: its time follows the number, the rest is hexadecimal digits that look random."""
    return f"01{kind:02x}{number >> 16:04x}-{number & 0xFFFF:04x}-7{random[:3]}-8{random[3:6]}-{random[6:18]}"


def _digits(kind: int, number: int) -> str:
    return blake2b(b"%d/%d" % (kind, number), digest_size=9).hexdigest()


def _company(number: int) -> str:
    return _text(_COMPANY, number, _digits(_COMPANY, number))


def _user(number: int) -> str:
    return _text(_USER, number, _digits(_USER, number))


def company_ids(people: int) -> Iterator[CompanyId]:
    """The companies of so many people."""
    for number in range(people // PEOPLE_PER_COMPANY):
        yield CompanyId(UUID(_company(number)))


def person(number: int, people: int) -> tuple[CompanyId, UserId]:
    """Company and id of a person, one of so many."""
    return CompanyId(UUID(_company(number % (people // PEOPLE_PER_COMPANY)))), UserId(UUID(_user(number)))


def membership(user_id: UserId, *, business_unit: str, show: str) -> GrantChanged:
    """27 permissions in two modules; the two scope ids are in the one whose cache is measured."""
    base = sorted(PERMISSIONS[_BASE], key=len)[:_BASE_PERMISSIONS]
    own = sorted(PERMISSIONS[MODULE], key=lambda key: (key != PERMISSION, len(key)))[:_MODULE_PERMISSIONS]
    scopes: Scopes = {"business_unit": (business_unit,), "event": (show,)}
    return GrantChanged(
        user_id=user_id,
        status=MembershipStatus.ACTIVE,
        superadmin=False,
        modules=(
            ModuleGrant(key=_BASE, permissions=dict.fromkeys(base), scopes={"venue": "*"}),
            ModuleGrant(key=MODULE, permissions=dict.fromkeys(own), scopes=scopes),
        ),
        delegations=(),
    )


@dataclass(frozen=True, slots=True)
class MembershipRecord:
    """A membership as the log holds it."""

    key: bytes
    value: bytes


class MembershipRecords:
    """Records of memberships as `contracts.envelope.encode` makes them, without making a million models for it.

    :param people: how many there are in all.
    :param version: of each membership.
    """

    def __init__(self, people: int, *, version: int = 1) -> None:
        self._companies = people // PEOPLE_PER_COMPANY
        self._ids = {kind: _text(kind, 0, f"{kind:x}" * 18) for kind in range(6)}
        event = envelop(
            membership(UserId(UUID(self._ids[_USER])), business_unit=self._ids[_BUSINESS_UNIT], show=self._ids[_SHOW]),
            occurred_at=datetime(2026, 5, 21, 9, tzinfo=UTC),
            company_id=CompanyId(UUID(self._ids[_COMPANY])),
            actor_user_id=None,
            epoch=1,
            version=version,
            correlation_id=UUID(self._ids[_CORRELATION]),
            event_id=UUID(self._ids[_EVENT]),
        )
        rest, self._kinds, self._pieces = encode(event).decode(), list[int](), list[str]()
        while found := [(rest.index(text), kind) for kind, text in self._ids.items() if text in rest]:
            place, kind = min(found)
            self._pieces.append(rest[:place])
            self._kinds.append(kind)
            rest = rest[place + len(self._ids[kind]) :]
        self._pieces.append(rest)

    def of(self, number: int) -> MembershipRecord:
        """The record of a person."""
        company, user, random = _company(number % self._companies), _user(number), _digits(_EVENT, number)
        ids = (company, user, *(_text(kind, number, random) for kind in (_EVENT, _CORRELATION, _BUSINESS_UNIT, _SHOW)))
        parts = [self._pieces[0]]
        for piece, kind in zip(self._pieces[1:], self._kinds, strict=True):
            parts += (ids[kind], piece)
        return MembershipRecord(f"{company}/{user}".encode(), "".join(parts).encode())
