"""What a service holds of the access path: one object that follows the topics and decides from its own cache."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from access.cache import MAP_SIZE_BYTES, Cache, Flag, Head, Partition
from access.decision import (
    Decision,
    Requirement,
    decide,
    decide_active_member,
    decide_company_admin,
    decide_platform_admin,
)
from access.feed import Feed, OnApplied
from access.freshness import OWNERS, SECOND, Bounds, Clocks, Window, judge
from access.ingest import (
    COMPANIES,
    MEMBERSHIPS,
    PERMISSIONS,
    SESSIONS,
    SIGNING_KEYS,
    STATE_TOPICS,
    Ingest,
    partition_of,
)
from access.records import (
    RECORD_KINDS,
    PermissionTable,
    membership_key,
    sessions_key,
    sessions_of,
    signing_key_key,
    signing_key_of,
    version_of,
)
from access.scopes import ScopeValue
from access.unknown import StateUnknownError
from contracts.identifiers import PLATFORM_COMPANY_ID
from contracts.problems import Reason
from infra.kafka.clients import Kafka

_INCOMPLETE: Final = "this instance is still loading the access state"
_ENDED: Final = "what follows the access state has ended in this process"
_TURN_SECONDS: Final = 0.25
_KID_LENGTH_MAX: Final = 120
_ENTITLEMENTS, _AUTH = 0, 1
_FLAGS_COUNTED_MAX: Final = 10_000

#: `now` and `age` of `access.freshness.Freshness`, as a window tells them.
_Moment: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Readiness:
    """Whether an instance can decide; where it cannot, why."""

    is_ready: bool
    why: str | None = None


@dataclass(frozen=True)
class Status:
    """The access path as an operator sees it."""

    ready: Readiness
    #: Whether this process is the one that follows the log.
    is_writer: bool
    generation: int
    complete: bool
    is_rebuilding: bool
    ages_seconds: Mapping[str, float | None]
    positions: Mapping[Partition, int]
    flags: tuple[Flag, ...]
    blocked: tuple[tuple[Partition, bytes], ...]


@dataclass(frozen=True)
class Figures:
    """What of the status is a number, and costs little to ask for however much is in quarantine.

    :ivar quarantined: how many subjects are in quarantine, by the kind of their record; 10,000 in all are counted.
    :ivar blocked: how many partitions are.
    """

    is_ready: bool
    ages_seconds: Mapping[str, float | None]
    positions: Mapping[Partition, int]
    quarantined: Mapping[str, int]
    blocked: int


def readiness(head: Head, clocks: Clocks, bounds: Bounds) -> Readiness:
    """Whether a cache can be decided from: complete, and inside the hard bound of reading, with or without Kafka."""
    if not head.complete:
        return Readiness(is_ready=False, why=_INCOMPLETE)
    doubt = judge(head.owners, clocks, bounds, reading=True).doubt
    return Readiness(is_ready=doubt is None, why=doubt)


#: A record is read again only when its bytes are others.
_signing_key_record: Final = lru_cache(maxsize=64)(signing_key_of)


@lru_cache(maxsize=64)
def _public_key(raw: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(raw)


class AccessPath:
    """The feed, the cache and the decision of one service."""

    def __init__(self, cache: Cache, feed: Feed, clocks: Clocks, bounds: Bounds) -> None:
        """Use `AccessPath.open`."""
        self.cache = cache
        self._feed = feed
        self._clocks = clocks
        self._bounds = bounds
        self._wall, self._boot = clocks.wall_us, clocks.boot_us
        self._take(cache.head())
        self._tables: dict[str, PermissionTable] = {}
        self._has_ended = False

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        service: str,
        modules: Collection[str],
        kafka: Kafka,
        root_key: Ed25519PublicKey,
        clocks: Clocks | None = None,
        bounds: Bounds | None = None,
        map_size_bytes: int = MAP_SIZE_BYTES,
        on_applied: OnApplied | None = None,
    ) -> "AccessPath":
        """Open the cache in `folder`; nothing is connected before `run`.

        `modules` are those whose grants are kept: a module's own, all for the resolver, none for a service that only
        judges memberships. `on_applied` is told of every state that came to decide. Open it after a fork. Raises
        CacheAlreadyOpenError.
        """
        clocks, bounds = clocks or Clocks.of(), bounds or Bounds()
        partitions = {topic.name: topic.partitions for topic in STATE_TOPICS.values()}
        cache = Cache.open(
            folder,
            boot_id=clocks.boot_id,
            # Another root key vouches for other signing keys, another prefix is another installation's log.
            scope=f"{service} {sorted(modules)} {root_key.public_bytes_raw().hex()} {kafka.topic_prefix} {partitions}",
            map_size_bytes=map_size_bytes,
        )
        ingest = Ingest(modules=modules, root_key=root_key)
        feed = Feed(
            kafka=kafka,
            cache=cache,
            ingest=ingest,
            clocks=clocks,
            bounds=bounds,
            name=service,
            on_applied=on_applied,
        )
        return cls(cache, feed, clocks, bounds)

    async def run(self) -> None:
        """Follow the topics until cancelled, as soon as no other process of the service does."""
        self._has_ended = False
        try:
            while not self.cache.try_to_write():  # noqa: ASYNC110  what it waits for happens in another process
                await asyncio.sleep(_TURN_SECONDS)
            await self._feed.run()
        finally:
            self._has_ended = True
            self.cache.stop_writing()

    def close(self) -> None:
        """Close the cache. `run` must have ended."""
        self.cache.close()

    # Decisions.

    def decide(
        self,
        company_id: UUID,
        user_id: UUID,
        requirement: Requirement,
        *,
        reading: bool,
        values: Mapping[str, ScopeValue] | None = None,
    ) -> Decision:
        """Whether this person may, in this company, now. `reading` is a request that changes nothing.

        `values` are the scope values of the object asked for; None where the operation or the query judges them.
        """
        module = requirement.module
        company = company_id.bytes
        head, membership, entitlement, permissions = self.cache.read_decision(
            b"m" + company + user_id.bytes, b"e" + company, requirement.permissions_key
        )
        if self._windows_of is not head:
            self._take(head)
        window = self._reading_window if reading and not requirement.administration else self._writing_window
        moment = window.at(self._wall(), self._boot())
        if moment is None or not head.complete:
            return self._unknown(head, reading=reading and not requirement.administration)
        now, age = moment
        if head.is_doubtful:
            doubt = self._doubt(
                head,
                (COMPANIES, f"{company_id}", entitlement, _ENTITLEMENTS),
                (MEMBERSHIPS, f"{company_id}/{user_id}", membership, _AUTH),
                (PERMISSIONS, module, permissions, _AUTH),
            )
            if doubt is not None:
                return Decision(Reason.STATE_UNKNOWN, detail=doubt)
        table = self._tables.get(module)
        if permissions is None:
            table = None
        elif table is None or table.raw != permissions:
            table = self._tables[module] = PermissionTable(permissions)
        decision = decide(membership, entitlement, table, requirement, now, values)
        decision.age_us = age
        return decision

    def decide_active_member(self, company_id: UUID, user_id: UUID, *, reading: bool) -> Decision:
        """Guard A."""
        membership, unknown = self._membership(company_id, user_id, reading=reading)
        return unknown or self._aged(decide_active_member(membership))

    def decide_company_admin(self, company_id: UUID, user_id: UUID) -> Decision:
        """Guard T: judged by the hard bound of writes on every method."""
        membership, unknown = self._membership(company_id, user_id, reading=False)
        return unknown or self._aged(decide_company_admin(membership))

    def decide_platform_admin(self, user_id: UUID) -> Decision:
        """Guard P: judged by the hard bound of writes on every method."""
        membership, unknown = self._membership(PLATFORM_COMPANY_ID, user_id, reading=False)
        return unknown or self._aged(decide_platform_admin(membership))

    def decide_signed_in(self, *, reading: bool) -> Decision:
        """Whether what is known of sessions is fresh enough to let a signed-in person through."""
        head = self.cache.head()
        return self._unknown_of_auth(head, reading=reading) or self._aged(Decision(None))

    # Identity.

    def signing_key(self, kid: str) -> Ed25519PublicKey | None:
        """The public key of a key id, or None where there is none to believe now.

        Raises StateUnknownError where that cannot be said: while the cache is incomplete, and where Auth's state is
        older than the hard bound of writes. Then a key that is not there may not have arrived, and one that was revoked
        may be believed again, by a database that was restored.
        """
        if not kid.isascii() or not 0 < len(kid) <= _KID_LENGTH_MAX:
            return None
        head, (raw,) = self.cache.read((signing_key_key(kid),))
        return self._signing_key(head, kid, raw, self._auth_at(head, reading=True))

    def session_is_live(self, user_id: UUID, session_id: UUID, generation: int) -> bool:
        """Whether a token's session has not been ended. Raises StateUnknownError where that cannot be said."""
        head, (raw,) = self.cache.read((sessions_key(user_id),))
        moment = self._auth_at(head, reading=True)
        return self._session_is_live(head, user_id, raw, session_id, generation, moment)

    def token_states(self, kid: str, user_id: UUID, session_id: UUID, generation: int) -> "TokenStates":
        """What `signing_key`, `session_is_live` and `keys_generation` say of a token, read in one transaction.

        `kid` is one that had a key before.
        """
        head, (key, sessions) = self.cache.read((signing_key_key(kid), sessions_key(user_id)))
        moment = self._auth_at(head, reading=True)
        return TokenStates(self, head, (kid, key, moment), (user_id, sessions, session_id, generation, moment))

    def _signing_key(self, head: Head, kid: str, raw: bytes | None, moment: _Moment | None) -> Ed25519PublicKey | None:
        if not head.complete:
            raise StateUnknownError(_INCOMPLETE)
        doubt = self._doubt(head, (SIGNING_KEYS, kid, raw, _AUTH)) if head.is_doubtful else None
        if raw is not None and doubt is None:
            record = _signing_key_record(raw)
            if record.status is None:
                raise StateUnknownError("the newest state of the key that signed your token could not be read")
            if record.verifies(self._auth_now(head) if moment is None else moment[0]):
                return _public_key(record.public_key)
        freshness = judge(head.owners[_AUTH:], self._clocks, self._bounds, reading=False, names=OWNERS[_AUTH:])
        doubt = doubt or freshness.doubt
        if doubt is not None:
            raise StateUnknownError(doubt, age_seconds=_seconds(freshness.age))
        return None

    def _session_is_live(
        self,
        head: Head,
        user_id: UUID,
        raw: bytes | None,
        session_id: UUID,
        generation: int,
        moment: _Moment | None,
    ) -> bool:
        unknown = None if moment is not None and head.complete else self._unknown_of_auth(head, reading=True)
        doubt = None if unknown is None else unknown.detail
        if doubt is None and head.is_doubtful:
            doubt = self._doubt(head, (SESSIONS, str(user_id), raw, _AUTH))
        if doubt is not None:
            raise StateUnknownError(doubt)
        if raw is None:
            return True
        record = sessions_of(raw)
        if record.is_unknown:
            raise StateUnknownError("the newest state of your sessions could not be read")
        return record.is_live(session_id, generation)

    @property
    def keys_generation(self) -> int:
        """Another number than before means that a token verified earlier has to be verified again."""
        return self.cache.head().keys_generation

    # State.

    @property
    def ready(self) -> Readiness:
        """Whether decisions are possible, and will be: `readiness`, and `run` has not ended."""
        if self._has_ended:
            return Readiness(is_ready=False, why=_ENDED)
        return readiness(self.cache.head(), self._clocks, self._bounds)

    def status(self) -> Status:
        """Everything an operator asks first."""
        head = self.cache.head()
        return Status(
            ready=self.ready,
            is_writer=self.cache.is_writer,
            generation=head.generation,
            complete=head.complete,
            is_rebuilding=len(set(self.cache.rebuilds())) > 1,
            ages_seconds=self._ages_seconds(head),
            positions=self.cache.positions(head.active),
            flags=tuple(self.cache.flags()),
            blocked=tuple(self.cache.blocks()),
        )

    def figures(self) -> Figures:
        """What an operator keeps an eye on."""
        head = self.cache.head()
        flagged = Counter(flag.key[:1] for flag in self.cache.flags(limit=_FLAGS_COUNTED_MAX))
        return Figures(
            is_ready=self.ready.is_ready,
            ages_seconds=self._ages_seconds(head),
            positions=self.cache.positions(head.active),
            quarantined={kind: flagged[prefix] for prefix, kind in RECORD_KINDS.items()},
            blocked=len(self.cache.blocked_partitions()),
        )

    def _ages_seconds(self, head: Head) -> Mapping[str, float | None]:
        boot = self._boot()
        return {name: _seconds(owner.age(boot)) for name, owner in zip(OWNERS, head.owners, strict=True)}

    def request_rebuild(self) -> None:
        """Rebuild the cache from the log while it serves. `generation` in `status` counts up when it is done."""
        self.cache.ask_for_rebuild()

    # Parts.

    def _take(self, head: Head) -> None:
        self._reading_window = Window(head.owners, self._bounds, reading=True)
        self._writing_window = Window(head.owners, self._bounds, reading=False)
        self._auth_reading_window = Window(head.owners[_AUTH:], self._bounds, reading=True)
        self._auth_writing_window = Window(head.owners[_AUTH:], self._bounds, reading=False)
        self._windows_of = head

    def _auth_at(self, head: Head, *, reading: bool) -> _Moment | None:
        if self._windows_of is not head:
            self._take(head)
        window = self._auth_reading_window if reading else self._auth_writing_window
        return window.at(self._wall(), self._boot())

    def _auth_now(self, head: Head) -> int:
        """What expiry is judged at where no window holds: however old Auth's state is."""
        return judge(head.owners[_AUTH:], self._clocks, self._bounds, reading=True, names=OWNERS[_AUTH:]).now

    def _membership(self, company_id: UUID, user_id: UUID, *, reading: bool) -> tuple[bytes | None, Decision | None]:
        head, (raw,) = self.cache.read((membership_key(company_id, user_id),))
        unknown = self._unknown_of_auth(head, reading=reading)
        if unknown is None:
            doubt = self._doubt(head, (MEMBERSHIPS, f"{company_id}/{user_id}", raw, _AUTH))
            unknown = None if doubt is None else Decision(Reason.STATE_UNKNOWN, detail=doubt)
        return raw, unknown

    def _aged(self, decision: Decision) -> Decision:
        decision.age_us = self.cache.head().owners[_AUTH].age(self._boot())
        return decision

    def _unknown(self, head: Head, *, reading: bool) -> Decision:
        if not head.complete:
            unknown = Decision(Reason.STATE_UNKNOWN, detail=_INCOMPLETE)
            unknown.age_us = None
            return unknown
        freshness = judge(head.owners, self._clocks, self._bounds, reading=reading)
        # The clocks may have moved on since the window was compared.
        unknown = Decision(Reason.STATE_UNKNOWN, detail=freshness.doubt or "the access state was stale for a moment")
        unknown.age_us = freshness.age
        return unknown

    def _unknown_of_auth(self, head: Head, *, reading: bool) -> Decision | None:
        if not head.complete:
            return self._unknown(head, reading=reading)
        if self._auth_at(head, reading=reading) is not None:
            return None
        freshness = judge(head.owners[_AUTH:], self._clocks, self._bounds, reading=reading, names=OWNERS[_AUTH:])
        if freshness.doubt is None:
            return None
        unknown = Decision(Reason.STATE_UNKNOWN, detail=freshness.doubt)
        unknown.age_us = freshness.age
        return unknown

    def _doubt(self, head: Head, *subjects: tuple[str, str, bytes | None, int]) -> str | None:
        """Why one of these subjects is unknown whatever its record says: its partition, or its epoch."""
        blocked = self.cache.blocked_partitions() if head.blocks else frozenset()
        for topic, key, raw, owner in subjects:
            if blocked and partition_of(topic, key.encode()) in blocked:
                return f"a record in this part of {topic} could not be read"
            floor = head.owners[owner].epoch_floor
            if floor and (raw is None or version_of(raw)[0] < floor):
                return f"{OWNERS[owner]} was restored and has not published its state again yet"
        return None


class TokenStates:
    """A token's key and session as of one instant. Each is judged when it is asked for."""

    __slots__ = ("_head", "_key", "_path", "_session")

    def __init__(
        self,
        path: AccessPath,
        head: Head,
        key: tuple[str, bytes | None, _Moment | None],
        session: tuple[UUID, bytes | None, UUID, int, _Moment | None],
    ) -> None:
        """Use `AccessPath.token_states`."""
        self._path = path
        self._head = head
        self._key = key
        self._session = session

    @property
    def keys_generation(self) -> int:
        return self._head.keys_generation

    def signing_key(self) -> Ed25519PublicKey | None:
        """Raises StateUnknownError."""
        return self._path._signing_key(self._head, *self._key)  # noqa: SLF001  it is a part of the path

    def session_is_live(self) -> bool:
        """Raises StateUnknownError."""
        return self._path._session_is_live(self._head, *self._session)  # noqa: SLF001  the same


def _seconds(age_us: int | None) -> float | None:
    return None if age_us is None else round(age_us / SECOND, 3)
