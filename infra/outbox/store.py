"""The relay's side of the outbox's tables, all on one connection of its own, which also holds the lock of the leader.

Nothing is deleted or counted on any other connection: when this one is gone, so is the right to.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, Protocol

import asyncpg

from infra.outbox.tables import CHANNEL
from infra.outbox.writer import Lane

#: One number for all: advisory locks are per database.
_LEADER_LOCK: Final = 7_305_800_002
_CONNECT_TIMEOUT_SECONDS: Final = 3.0
_QUERY_TIMEOUT_SECONDS: Final = 10.0
#: PostgreSQL ends the session of a leader that is silent for so long, frozen or cut off, and with it the lock.
_SILENCE_MAX: Final = "5s"
#: A leader that has heard nothing from PostgreSQL for so long asks before it sends: it may be leader no more.
_PROOF_AGE_MAX_SECONDS: Final = 3.0
_DEPTH_MAX: Final = 100_000
#: An outbox is empty whenever it is vacuumed. Planned for that, every statement would read all of a backlog.
_BY_INDEX_ALONE: Final = dict.fromkeys(
    ("enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_hashjoin", "enable_mergejoin"), "off"
)


class StoreLostError(Exception):
    """The connection broke or was ended; this relay is no leader any more."""


class Row(NamedTuple):
    """A record that is pending. `fact_id` is none for a state; `epoch`, `version` and `position` are 0 for a fact.

    A tuple, since a relay makes one of each row it sends.
    """

    topic: str
    key: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    epoch: int = 0
    version: int = 0
    #: The place in its lane.
    position: int = 0
    fact_id: int | None = None


@dataclass(frozen=True)
class Server:
    """Which PostgreSQL this is: a cluster, and the timeline every recovery of it begins anew."""

    system_id: str
    timeline: int

    def __str__(self) -> str:
        """As operators are told."""
        return f"system {self.system_id}, timeline {self.timeline}"


@dataclass(frozen=True)
class Publisher:
    """The row of the publisher.

    :ivar server: what was last published from; none before the first leader.
    :ivar refusal: why nothing is published, where the database was found to be restored.
    :ivar restore: the restore an operator asked for that is not finished.
    """

    epoch: int
    epoch_complete: bool
    publish_counter: int
    server: Server | None = None
    refusal: str | None = None
    restore: int | None = None


@dataclass
class Progress:
    """What is known of one partition; offsets are next offsets."""

    topic: str
    partition: int
    topic_id: str
    acknowledged_offset: int
    checked_offset: int
    lost: bool = False


@dataclass(frozen=True)
class Refusal:
    """A row the log will never take."""

    row: Row
    reason: str


@dataclass
class Settlement:
    """What a round came to: rows acknowledged, rows refused, partitions that moved."""

    acknowledged: list[Row] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    moved: list[Progress] = field(default_factory=list)


@dataclass(frozen=True)
class Backlog:
    """What is pending: rows up to 100,000, and since when the oldest."""

    depth: int = 0
    refused: int = 0
    oldest_at: datetime | None = None


_READ_STATES: Final = """
    select now() as read_at, pending.*
    from (select 1) as one left join lateral (
        select topic, key, value, headers, epoch, version, position from outbox_states
        where lane = $1 and position > $3 and refused_at is null order by position limit $2
    ) as pending on true
"""
_READ_FACTS: Final = """
    select id, topic, key, value, headers from outbox_facts where refused_at is null order by id limit $1
"""
# A row that a writer holds is skipped: it is being replaced, or it is deleted with the next settlement. Numbers come as
# texts of arrays: asyncpg takes its time to find out of each number in a list that it is none.
_SETTLE: Final = """
    with sent as (
        select * from unnest($1::text[], $2::text[], $3::text::bigint[], $4::text::bigint[])
            as sent (topic, key, epoch, version)
    ), held as (
        select pending.ctid from outbox_states as pending join sent using (topic, key, epoch, version)
        for update of pending skip locked
    ), deleted as (
        delete from outbox_states where ctid = any (array (select ctid from held)) returning topic, key
    ), deleted_facts as (
        delete from outbox_facts where id = any ($5::text::bigint[])
    ), counted as (
        update outbox_publisher set publish_counter = publish_counter + $6 where $6 > 0
    ), moved as (
        insert into outbox_partitions (topic, partition, topic_id, acknowledged_offset, checked_offset)
        select * from unnest($7::text[], $8::integer[], $9::text[], $10::bigint[], $11::bigint[])
        on conflict (topic, partition) do update set
            acknowledged_offset = greatest(outbox_partitions.acknowledged_offset, excluded.acknowledged_offset),
            checked_offset = greatest(outbox_partitions.checked_offset, excluded.checked_offset)
        where outbox_partitions.topic_id = excluded.topic_id
    )
    select topic, key from sent
    where (select count(*) from deleted) < cardinality($1) and (topic, key) not in (select topic, key from deleted)
"""
_REFUSE_STATE: Final = """
    update outbox_states set refused_at = now(), refusal = $5
    where topic = $1 and key = $2 and epoch = $3 and version = $4
"""
_REFUSE_FACT: Final = "update outbox_facts set refused_at = now(), refusal = $2 where id = $1"
_LOSE: Final = "update outbox_partitions set lost_at = coalesce(lost_at, now()) where topic = any ($1::text[])"
_PUBLISHER: Final = """
    select epoch, epoch_complete, publish_counter, system_id, timeline, refusal,
        (select min(id) from outbox_restores where finished_at is null) as restore
    from outbox_publisher
"""
# The timeline is that of the segment being written: the one in the control file is told only by the next checkpoint.
_SERVER: Final = """
    select system_identifier::text as system_id,
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint as timeline
    from pg_control_system()
"""
_ADOPT_SERVER: Final = "update outbox_publisher set system_id = $1, timeline = $2"
_REFUSE: Final = "update outbox_publisher set refusal = $1"
_BEGIN_EPOCH: Final = """
    with before as (select epoch from outbox_publisher), begun as (
        update outbox_publisher
        set epoch = $1, epoch_complete = false, publish_counter = 0, system_id = $2, timeline = $3, refusal = null
    )
    update outbox_restores set began_at = coalesce(began_at, now()),
        epoch_before = coalesce(epoch_before, (select epoch from before)), epoch = $1
    where finished_at is null
"""
_NOTE_RESTORE: Final = "update outbox_restores set republished = $1, withdrawn = $2 where finished_at is null"
_COMPLETE_EPOCH: Final = """
    with completed as (update outbox_publisher set epoch_complete = true)
    update outbox_restores set finished_at = now() where finished_at is null and epoch is not null
"""
_RECOVER: Final = """
    insert into outbox_partitions (topic, partition, topic_id, acknowledged_offset, checked_offset)
    select * from unnest($1::text[], $2::integer[], $3::text[], $4::bigint[], $5::bigint[])
    on conflict (topic, partition) do update set topic_id = excluded.topic_id, lost_at = null,
        acknowledged_offset = excluded.acknowledged_offset, checked_offset = excluded.checked_offset
"""
_BACKLOG: Final = f"""
    select count(*) filter (where not refused) as depth, count(*) filter (where refused) as refused,
        min(enqueued_at) filter (where not refused) as oldest_at
    from (
        (select enqueued_at, refused_at is not null as refused from outbox_states limit {_DEPTH_MAX})
        union all (select enqueued_at, refused_at is not null from outbox_facts limit {_DEPTH_MAX})
    ) as pending
"""  # noqa: S608 - a constant


class Store(Protocol):
    """One connection to the outbox's tables. Every method raises StoreLostError when it is gone."""

    async def try_lead(self) -> bool: ...

    async def listen(self, notified: Callable[[], None]) -> None: ...

    async def prove(self) -> None: ...

    async def prove_if_old(self) -> None: ...

    async def read_states(self, lane: Lane, limit: int, *, behind: int = 0) -> tuple[datetime, list[Row]]: ...

    async def read_facts(self, limit: int) -> list[Row]: ...

    async def settle(self, settlement: Settlement, *, newly_acknowledged: int) -> set[tuple[str, str]]: ...

    async def publisher(self) -> Publisher: ...

    async def progress(self) -> list[Progress]: ...

    async def lose(self, topics: Iterable[str]) -> None: ...

    async def recover(self, progress: Iterable[Progress]) -> None: ...

    async def server(self) -> Server: ...

    async def adopt_server(self, server: Server) -> None: ...

    async def refuse(self, reason: str) -> None: ...

    async def begin_epoch(self, epoch: int, server: Server) -> None: ...

    async def note_restore(self, *, republished: int, withdrawn: int) -> None: ...

    async def complete_epoch(self) -> None: ...

    async def backlog(self) -> Backlog: ...

    def terminate(self) -> None: ...


OpenStore = Callable[[], Awaitable[Store]]
#: An internal error is what asyncpg makes of a server that ends the session between a question and its answer.
_LOST: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class OutboxStore:
    """The store of a real database. Every method raises StoreLostError when it is gone."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._one_at_a_time = asyncio.Lock()
        self._proved_at = asyncio.get_running_loop().time()

    @classmethod
    async def open(cls, url: str) -> "OutboxStore":
        try:
            connection = await asyncpg.connect(
                url,
                timeout=_CONNECT_TIMEOUT_SECONDS,
                command_timeout=_QUERY_TIMEOUT_SECONDS,
                server_settings={
                    "application_name": "outbox relay",
                    "idle_session_timeout": _SILENCE_MAX,
                    **_BY_INDEX_ALONE,
                },
            )
        except _LOST as error:
            raise StoreLostError(f"no connection: {error!r}") from error
        return cls(connection)

    @classmethod
    def opener(cls, url: str) -> OpenStore:
        """Opens stores of one database."""
        return partial(cls.open, url)

    async def try_lead(self) -> bool:
        """Whether this connection now holds the lock; it keeps it until it ends."""
        return bool(await self._run(self._connection.fetchval, "select pg_try_advisory_lock($1)", _LEADER_LOCK))

    async def listen(self, notified: Callable[[], None]) -> None:
        """Call `notified` whenever a transaction that wrote has committed."""
        await self._run(self._connection.add_listener, CHANNEL, lambda *_: notified())

    async def prove(self) -> None:
        """Show that the connection, and so the lock, is still there."""
        await self._run(self._connection.fetchval, "select 1")

    async def prove_if_old(self) -> None:
        """The same, if the last answer is seconds old: this process may have been frozen since."""
        if asyncio.get_running_loop().time() - self._proved_at > _PROOF_AGE_MAX_SECONDS:
            await self.prove()

    async def read_states(self, lane: Lane, limit: int, *, behind: int = 0) -> tuple[datetime, list[Row]]:
        """Pending states of a lane in its order, and the database time before which all committed ones are seen.

        :param behind: only those behind this position. What commits late, or replaces a row, may lie before it.
        """
        found = await self._run(self._connection.fetch, _READ_STATES, int(lane), limit, behind)
        rows = [
            Row(topic, key, value, _headers(headers), epoch, version, position)
            for _, topic, key, value, headers, epoch, version, position in found
            if topic is not None
        ]
        return found[0]["read_at"], rows

    async def read_facts(self, limit: int) -> list[Row]:
        """Pending facts, oldest first."""
        found = await self._run(self._connection.fetch, _READ_FACTS, limit)
        return [
            Row(
                topic=record["topic"],
                key=record["key"],
                value=record["value"],
                headers=_headers(record["headers"]),
                fact_id=record["id"],
            )
            for record in found
        ]

    async def settle(self, settlement: Settlement, *, newly_acknowledged: int) -> set[tuple[str, str]]:
        """Delete what was acknowledged, set aside what was refused; returns the keys of the states not deleted.

        A state that was replaced since, or that a writer holds, stays.
        """
        states = [row for row in settlement.acknowledged if row.fact_id is None]
        facts = [row.fact_id for row in settlement.acknowledged if row.fact_id is not None]
        moved = settlement.moved
        left = await self._run(
            self._connection.fetch,
            _SETTLE,
            [row.topic for row in states],
            [row.key for row in states],
            _array(row.epoch for row in states),
            _array(row.version for row in states),
            _array(facts),
            newly_acknowledged,
            [progress.topic for progress in moved],
            [progress.partition for progress in moved],
            [progress.topic_id for progress in moved],
            [progress.acknowledged_offset for progress in moved],
            [progress.checked_offset for progress in moved],
        )
        for refusal in settlement.refused:
            row = refusal.row
            if row.fact_id is None:
                set_aside: tuple[Any, ...] = (_REFUSE_STATE, row.topic, row.key, row.epoch, row.version, refusal.reason)
            else:
                set_aside = (_REFUSE_FACT, row.fact_id, refusal.reason)
            await self._run(self._connection.execute, *set_aside)
        return {(topic, key) for topic, key in left}

    async def publisher(self) -> Publisher:
        found = await self._run(self._connection.fetchrow, _PUBLISHER)
        return Publisher(
            epoch=found["epoch"],
            epoch_complete=found["epoch_complete"],
            publish_counter=found["publish_counter"],
            server=None if found["system_id"] is None else Server(found["system_id"], found["timeline"]),
            refusal=found["refusal"],
            restore=found["restore"],
        )

    async def progress(self) -> list[Progress]:
        """What is stored of every partition."""
        found = await self._run(
            self._connection.fetch,
            "select topic, partition, topic_id, acknowledged_offset, checked_offset, lost_at is not null as lost"
            " from outbox_partitions",
        )
        return [Progress(**record) for record in found]

    async def lose(self, topics: Iterable[str]) -> None:
        """Remember that the logs of these topics are not those that were written."""
        await self._run(self._connection.execute, _LOSE, list(topics))

    async def recover(self, progress: Iterable[Progress]) -> None:
        """Take what is known of these partitions for what is true of the logs there are now; they are lost no more."""
        found = list(progress)
        await self._run(
            self._connection.execute,
            _RECOVER,
            [known.topic for known in found],
            [known.partition for known in found],
            [known.topic_id for known in found],
            [known.acknowledged_offset for known in found],
            [known.checked_offset for known in found],
        )

    async def server(self) -> Server:
        """Which PostgreSQL answers."""
        return Server(**await self._run(self._connection.fetchrow, _SERVER))

    async def adopt_server(self, server: Server) -> None:
        """Remember it as the one that is published from."""
        await self._run(self._connection.execute, _ADOPT_SERVER, server.system_id, server.timeline)

    async def refuse(self, reason: str) -> None:
        """Have no leader publish anything until a restore was begun."""
        await self._run(self._connection.execute, _REFUSE, reason)

    async def begin_epoch(self, epoch: int, server: Server) -> None:
        """Begin the restore that was asked for: publish under this epoch, which is not complete, from this server."""
        await self._run(self._connection.execute, _BEGIN_EPOCH, epoch, server.system_id, server.timeline)

    async def note_restore(self, *, republished: int, withdrawn: int) -> None:
        """How far the restore is."""
        await self._run(self._connection.execute, _NOTE_RESTORE, republished, withdrawn)

    async def complete_epoch(self) -> None:
        """All of the epoch is in the log; the restore is finished."""
        await self._run(self._connection.execute, _COMPLETE_EPOCH)

    async def backlog(self) -> Backlog:
        return Backlog(**await self._run(self._connection.fetchrow, _BACKLOG))

    def terminate(self) -> None:
        """End the connection without asking; a polite close would wait for one that is gone."""
        self._connection.terminate()

    async def _run(self, query: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async with self._one_at_a_time:
            asked_at = asyncio.get_running_loop().time()
            try:
                answer = await query(*arguments)
            except _LOST as error:
                raise StoreLostError(repr(error)) from error
            self._proved_at = asked_at
            return answer


def _array(numbers: Iterable[int]) -> str:
    """As PostgreSQL writes it."""
    return f"{{{','.join(map(str, numbers))}}}"


@lru_cache(maxsize=256)
def _headers(document: str) -> tuple[tuple[str, bytes], ...]:
    """Records of one type have the same headers, so nearly all come from the cache."""
    return tuple((name, value.encode()) for name, value in json.loads(document).items())
