"""The rows behind a state topic, as a relay asks for them: what operations of a service are to it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from contracts.events.auth import MembershipStatus, SigningKeyStatus
from contracts.events.entitlements import EntitlementStatus
from contracts.identifiers import CompanyId, UserId
from contracts.topics import Topic
from infra.outbox.source import one_by_one
from infra.outbox.writer import Lane, Revision, next_version
from tests.simulation.database import SimulatedWork
from tests.simulation.truth import EntitlementRow, MembershipRow, PermissionsRow, Row, SessionsRow, SigningKeyRow

_LAST_GENERATION: Final = 2**31
_NOTHING: Final = bytes(32)
_MODULE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,120}")


class SimulatedSource:
    """A `StateSource` over a simulated database."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    def is_key(self, key: str) -> bool:
        return self._empty(key) is not None

    async def keys(self, work: SimulatedWork, *, after: str | None, limit: int) -> Sequence[str]:
        return await work.keys(self._topic.name, after=after, limit=limit)

    async def republish(
        self, work: SimulatedWork, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        row = await work.lock(self._topic.name, key)
        return None if row is None else await self._publish(work, row, now=now, above=above, lane=lane)

    async def republish_all(self, work: SimulatedWork, keys: Sequence[str], *, now: datetime, lane: Lane) -> None:
        await one_by_one(self.republish)(work, keys, now=now, lane=lane)

    async def withdraw(
        self, work: SimulatedWork, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        row = self._empty(key)
        return None if row is None else await self._publish(work, row, now=now, above=above or 0, lane=lane)

    @staticmethod
    async def _publish(work: SimulatedWork, row: Row, *, now: datetime, above: int | None, lane: Lane) -> Revision:
        if above is not None:
            row = replace(row, version=next_version(row.version, above))
            await work.write(row)
        return await work.publish_row(row, occurred_at=now, lane=lane)

    def _empty(self, key: str) -> Row | None:
        """The row of a key that gives nothing, before its first version; None for what is no key of the topic."""
        try:
            return _EMPTY[self._topic.name](key)
        except ValueError:
            return None


def _uuid(text: str) -> UUID:
    value = UUID(text)
    if str(value) != text:
        raise ValueError("not the one form of a UUID")
    return value


def _membership(key: str) -> Row:
    company, _, user = key.partition("/")
    return MembershipRow(CompanyId(_uuid(company)), UserId(_uuid(user)), MembershipStatus.REMOVED, version=0)


def _entitlement(key: str) -> Row:
    return EntitlementRow(CompanyId(_uuid(key)), EntitlementStatus.NONE, None, {}, version=0)


def _permissions(key: str) -> Row:
    if not _MODULE.fullmatch(key):
        raise ValueError("no module key")
    return PermissionsRow(key, {}, version=0)


def _sessions(key: str) -> Row:
    return SessionsRow(UserId(_uuid(key)), min_gen=_LAST_GENERATION, revoked={}, version=0)


def _signing_key(key: str) -> Row:
    if not _KID.fullmatch(key):
        raise ValueError("no key id")
    year = datetime(2020, 1, 1, tzinfo=UTC)
    return SigningKeyRow(key, _NOTHING, SigningKeyStatus.REVOKED, year, year, version=0)


_EMPTY: Final[Mapping[str, Callable[[str], Row]]] = {
    "auth.memberships.v1": _membership,
    "entitlements.companies.v1": _entitlement,
    "auth.permissions.v1": _permissions,
    "auth.sessions.v1": _sessions,
    "auth.signing-keys.v1": _signing_key,
}
