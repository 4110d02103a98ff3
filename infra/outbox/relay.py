"""Brings what is in the outbox to Kafka: one leader per database, in order per key, and nothing is lost or left old.

Every instance of a service runs a relay; the one whose connection holds the database's lock leads, the others wait for
it. What was acknowledged is deleted if it is still what was sent. On any error nothing is deleted: the producer is
given up, the rows are read and sent again, and readers ignore what they have seen.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

import structlog

from contracts.topics import Topic
from infra.clock import Clock, utc_now
from infra.kafka.clients import Kafka
from infra.outbox.heartbeat import INTERVAL_SECONDS, heartbeat_row, is_heartbeat
from infra.outbox.log import BatchRows, Log, LogUnavailableError, Sent
from infra.outbox.store import Backlog, OpenStore, Progress, Refusal, Row, Settlement, Store, StoreLostError
from infra.outbox.tail import Republish, Tail
from infra.outbox.unknown import unknown_state_of
from infra.outbox.watch import TopicWatch
from infra.outbox.writer import Lane
from infra.postgres.database import UnitsOfWork
from infra.tasks import end_tasks

#: Rows of a round. A revocation that comes a moment after a round has begun waits for its end.
_ROUND_ROWS_MAX: Final = 1000
_BULK_ROWS_MAX: Final = 500
_LOCK_INTERVAL_SECONDS: Final = 0.25
_PROOF_INTERVAL_SECONDS: Final = 1.0
_WATCH_INTERVAL_SECONDS: Final = 1.0
_WATCH_AGE_MAX_SECONDS: Final = 5.0
_BACKOFF_MIN_SECONDS: Final = 0.05
_BACKOFF_MAX_SECONDS: Final = 1.0

_log: Final = structlog.get_logger("kisum.outbox")


class IncompleteRelayError(Exception):
    """The service owns a state topic and does not say how its states are published again."""


@dataclass(frozen=True)
class _Parts:
    """What a relay was given."""

    open_store: OpenStore
    database: UnitsOfWork
    kafka: Kafka
    states: tuple[Topic, ...]
    facts: tuple[Topic, ...]
    heartbeats: Topic | None
    republish: Mapping[str, Republish]
    clock: Clock

    @property
    def topics(self) -> tuple[Topic, ...]:
        """What is written through the outbox."""
        return (*self.states, *self.facts)


class Relay:
    """The relay of one service.

    :param open_store: opens the relay's one connection of its own to the database.
    :param database: where `republish` gets its units of work from.
    :param topics: all topics the service owns.
    :param republish: for each state topic, by its name, what publishes the current state of a key again. It is called
        with a unit of work and the key, takes the lock of the aggregate's row, and calls `publish_state` with the
        version that is there; it answers the revision, or none where the database knows no such key.

    Its state is for readiness, metrics and operators:

    :ivar leads: whether this relay holds the lock.
    :ivar backlog: what is pending, as the leader last saw it, once a second.
    :ivar lost_topics: topics whose log is another or shorter than what was acknowledged. While there is one no
        heartbeat is sent; it is over when `outbox_partitions` no longer says `lost_at`.
    :ivar as_of: the newest database time that is known to hold; none while this relay does not lead.
    """

    def __init__(
        self,
        *,
        open_store: OpenStore,
        database: UnitsOfWork,
        kafka: Kafka,
        topics: Iterable[Topic],
        republish: Mapping[str, Republish],
        clock: Clock = utc_now,
    ) -> None:
        owned = tuple(topics)
        # Dead letters and what every instance writes go past the outbox.
        written = tuple(
            topic for topic in owned if not (is_heartbeat(topic) or topic.dead_letters or topic.other_writers)
        )
        self._parts = _Parts(
            open_store=open_store,
            database=database,
            kafka=kafka,
            states=tuple(topic for topic in written if topic.cleanup == "compact"),
            facts=tuple(topic for topic in written if topic.cleanup == "delete"),
            heartbeats=next((topic for topic in owned if is_heartbeat(topic)), None),
            republish=republish,
            clock=clock,
        )
        absent = [topic.name for topic in self._parts.states if topic.name not in republish]
        if absent:
            raise IncompleteRelayError(f"no way to publish again: {', '.join(absent)}")
        self._task: asyncio.Task[None] | None = None
        self.leads = False
        self.backlog = Backlog()
        self.lost_topics: frozenset[str] = frozenset()
        self.as_of: datetime | None = None

    @property
    def oldest_pending_age(self) -> timedelta:
        """How long the oldest row has been pending; zero if none is."""
        oldest_at = self.backlog.oldest_at
        return timedelta(0) if oldest_at is None else max(timedelta(0), self._parts.clock() - oldest_at)

    async def run(self) -> None:
        """Lead whenever this relay can, until cancelled or closed."""
        self._task = asyncio.current_task()
        while True:
            try:
                await self._serve()
            except StoreLostError as lost:
                _log.warning("the relay's connection to the database is gone", reason=str(lost))
            except Exception:  # noqa: BLE001 - logged, and tried again
                # A relay that ended for ever would be worse than one that says each second what is wrong with it.
                _log.exception("the relay failed and starts again")
            await asyncio.sleep(_BACKOFF_MAX_SECONDS)

    async def close(self) -> None:
        """End `run` and wait for it. What is being sent is left pending, and sent again by the next leader."""
        if self._task is not None:
            await end_tasks(self._task)

    async def _serve(self) -> None:
        store = await self._parts.open_store()
        try:
            while not await store.try_lead():  # noqa: ASYNC110 - PostgreSQL tells nobody that a lock is free
                await asyncio.sleep(_LOCK_INTERVAL_SECONDS)
            self.leads = True
            _log.info("the relay leads")
            leader = _Leader(self._parts, self, store)
            await _together(_keep_proving(store), leader.publish(), leader.heal())
        finally:
            self.leads = False
            self.as_of = None
            store.terminate()


class _Leader:
    """One leadership: what is known from taking the lock to losing it."""

    def __init__(self, parts: _Parts, status: Relay, store: Store) -> None:
        self._parts = parts
        self._status = status
        self._store = store
        self._wake = asyncio.Event()
        self._batch_rows = BatchRows()
        self._progress: dict[tuple[str, int], Progress] = {}
        #: The offsets that are in the database, as (acknowledged, checked).
        self._stored: dict[tuple[str, int], tuple[int, int]] = {}
        self._tail: Tail | None = None
        self._has_tail = asyncio.Event()
        #: States that were acknowledged and not yet deleted, since a writer held their row.
        self._acknowledged: dict[tuple[str, str], Row] = {}
        self._settling = asyncio.Lock()
        self._refusals: list[Refusal] = []
        self._sending = False
        self._beat_at = 0.0
        self._seen_at = 0.0
        self._backoff_seconds = _BACKOFF_MIN_SECONDS

    async def heal(self) -> None:
        """Have published again what the tail finds."""
        await self._has_tail.wait()
        if self._tail is not None:
            await self._tail.heal()

    async def publish(self) -> NoReturn:
        """Publish until the store is lost; Kafka may come and go."""
        await self._store.listen(self._wake.set)
        heartbeats = () if self._parts.heartbeats is None else (self._parts.heartbeats,)
        while True:
            log = Log(self._parts.kafka, (*self._parts.topics, *heartbeats), self._batch_rows)
            try:
                await self._publish(log)
            except LogUnavailableError as gone:
                _log.warning("the log is not available", reason=str(gone))
            finally:
                self._sending = False
                await log.close()
            self._status.backlog = await self._store.backlog()
            await asyncio.sleep(self._backoff_seconds)
            self._backoff_seconds = min(self._backoff_seconds * 2, _BACKOFF_MAX_SECONDS)

    async def _publish(self, log: Log) -> None:
        """With one producer, until it is of no more use: then LogUnavailableError."""
        await log.open()
        watch = TopicWatch(self._parts.kafka, self._parts.topics)
        await self._compare(watch)
        if self._tail is None:
            self._tail = Tail(
                self._parts.states,
                self._parts.republish,
                self._parts.database,
                self._progress.values(),
                self._forget,
            )
            self._has_tail.set()
        await self._set_aside(log)
        await _together(
            self._watch(watch),
            self._tail.read(self._parts.kafka, is_sending=lambda: self._sending),
            self._relay_rows(log),
        )

    async def _relay_rows(self, log: Log) -> NoReturn:
        while True:
            self._wake.clear()
            more = await self._round(log)
            await self._beat(log)
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._beat_at + INTERVAL_SECONDS - _monotonic_seconds())):
                        await self._wake.wait()

    async def _round(self, log: Log) -> bool:
        """Read, send, settle; whether there is more."""
        held = len(self._acknowledged)
        as_of, rows = await self._store.read_states(Lane.INTERACTIVE, _ROUND_ROWS_MAX + held)
        whole = len(rows) < _ROUND_ROWS_MAX + held
        more = not whole
        if self._parts.facts:
            facts = await self._store.read_facts(_ROUND_ROWS_MAX)
            more = more or len(facts) == _ROUND_ROWS_MAX
            rows += facts
        if whole and self._parts.states:
            _, bulk = await self._store.read_states(Lane.BULK, _BULK_ROWS_MAX + held)
            more = more or len(bulk) == _BULK_ROWS_MAX + held
            rows += bulk
        await self._send(log, [row for row in rows if not self._is_acknowledged(row)])
        if whole:
            self._status.as_of = as_of
        return more

    async def _send(self, log: Log, rows: Sequence[Row]) -> None:
        """Send and settle. Raises LogUnavailableError if anything was not acknowledged."""
        if not rows and not self._acknowledged:
            return
        await self._store.prove_if_old()
        self._sending = True
        outcomes = await log.send(rows)
        self._sending = False
        settlement = Settlement()
        for sent in outcomes:
            settlement.acknowledged += sent.acknowledged
            await self._note(sent)
        if self._tail is not None:
            self._tail.judge()
        await self._settle(settlement)
        self._refusals += [sent.refusal for sent in outcomes if sent.refusal is not None]
        errors = [sent.error for sent in outcomes if sent.error is not None]
        if not errors or any(sent.came_further for sent in outcomes):
            self._backoff_seconds = _BACKOFF_MIN_SECONDS
        if errors:
            raise LogUnavailableError(repr(errors[0]))

    async def _settle(self, settlement: Settlement) -> None:
        async with self._settling:
            await self._settle_alone(settlement)

    async def _forget(self, topic: str, key: str) -> None:
        """Have the key's row sent again if it is still pending, once no deletion of it is under way."""
        async with self._settling:
            self._acknowledged.pop((topic, key), None)

    async def _settle_alone(self, settlement: Settlement) -> None:
        newly = len(settlement.acknowledged)
        states = {(row.topic, row.key): row for row in settlement.acknowledged if row.fact_id is None}
        settlement.acknowledged += [row for key, row in self._acknowledged.items() if key not in states]
        self._acknowledged |= states
        settlement.moved = [
            known
            for partition, known in self._progress.items()
            if not known.lost and self._stored.get(partition) != (known.acknowledged_offset, known.checked_offset)
        ]
        moved = {
            (known.topic, known.partition): (known.acknowledged_offset, known.checked_offset)
            for known in settlement.moved
        }
        for key in await self._store.settle(settlement, newly_acknowledged=newly):
            self._acknowledged.pop(key, None)
        self._stored |= moved

    def _is_acknowledged(self, row: Row) -> bool:
        known = self._acknowledged.get((row.topic, row.key)) if row.fact_id is None else None
        return known is not None and (known.epoch, known.version) == (row.epoch, row.version)

    async def _note(self, sent: Sent) -> None:
        """Remember where the rows are in the log."""
        if not sent.ranges:
            return
        if self._tail is not None:
            self._tail.note_sent(sent)
        known = self._progress[sent.topic, sent.partition]
        if not known.lost and sent.ranges[0][0] < known.acknowledged_offset:
            await self._lose({sent.topic}, "an offset was given out again")
        if not known.lost:
            known.acknowledged_offset = sent.ranges[-1][1] + 1

    async def _set_aside(self, log: Log) -> None:
        """Publish the keys of refused states as unknown, then mark the rows."""
        while self._refusals:
            refusal = self._refusals[0]
            row = refusal.row
            _log.error("the log refuses a row; it is set aside", topic=row.topic, key=row.key, reason=refusal.reason)
            if row.fact_id is None:
                (sent,) = await log.send([unknown_state_of(row)])
                await self._note(sent)
                if sent.error is not None:
                    raise LogUnavailableError(repr(sent.error))
            await self._settle(Settlement(refused=[refusal]))
            self._refusals.pop(0)
            self._batch_rows.forget()

    async def _beat(self, log: Log) -> None:
        """Once a second: count what is pending, store what was checked, and send the heartbeat if all of it holds."""
        now = _monotonic_seconds()
        if now < self._beat_at + INTERVAL_SECONDS:
            return
        self._beat_at = now
        self._status.backlog = await self._store.backlog()
        await self._settle(Settlement())
        topic, as_of = self._parts.heartbeats, self._status.as_of
        seen_lately = now - self._seen_at < _WATCH_AGE_MAX_SECONDS
        if topic is None or as_of is None or self._status.lost_topics or not seen_lately:
            return
        states = {state.name for state in self._parts.states}
        row = heartbeat_row(
            topic,
            as_of=as_of,
            publisher=await self._store.publisher(),
            progress=[known for known in self._progress.values() if known.topic in states],
            now=self._parts.clock(),
        )
        await self._store.prove_if_old()
        (sent,) = await log.send([row])
        if sent.error is not None:
            raise LogUnavailableError(repr(sent.error))

    async def _watch(self, watch: TopicWatch) -> NoReturn:
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_SECONDS)
            await self._compare(watch)

    async def _compare(self, watch: TopicWatch) -> None:
        """Find topics that are not the ones that were written, or are shorter."""
        if not self._progress or self._status.lost_topics:
            await self._load()
        before = {partition: known.acknowledged_offset for partition, known in self._progress.items()}
        seen = await watch.look()
        lost = set()
        for (topic, number), end in seen.ends.items():
            topic_id = seen.topic_ids[topic]
            known = self._progress.get((topic, number))
            if known is None:
                # Nothing was ever acknowledged here; what the log holds all the same is checked from its beginning.
                self._progress[topic, number] = Progress(topic, number, topic_id, end, 0)
            elif not known.lost and (known.topic_id != topic_id or end < before[topic, number]):
                lost.add(topic)
        if lost:
            await self._lose(lost, "the broker has another topic of this name, or a shorter one")
        self._seen_at = _monotonic_seconds()

    async def _load(self) -> None:
        """Take over what is stored, where nothing is known here or a topic was lost and may be no more."""
        names = {topic.name for topic in self._parts.topics}
        for stored in await self._store.progress():
            partition = stored.topic, stored.partition
            known = self._progress.get(partition)
            if stored.topic not in names or (known is not None and not known.lost):
                continue
            if known is None:
                self._progress[partition] = stored
            elif not stored.lost:
                known.topic_id, known.acknowledged_offset = stored.topic_id, stored.acknowledged_offset
                known.lost = False
        self._tell_lost()

    async def _lose(self, topics: set[str], reason: str) -> None:
        _log.error(
            "a log was lost; no heartbeat until its topic is published anew", topics=sorted(topics), reason=reason
        )
        await self._store.lose(topics)
        for known in self._progress.values():
            known.lost = known.lost or known.topic in topics
        self._tell_lost()

    def _tell_lost(self) -> None:
        self._status.lost_topics = frozenset(known.topic for known in self._progress.values() if known.lost)


def _monotonic_seconds() -> float:
    return asyncio.get_running_loop().time()


async def _keep_proving(store: Store) -> NoReturn:
    while True:
        await asyncio.sleep(_PROOF_INTERVAL_SECONDS)
        await store.prove()


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all until one fails, end the others, raise what it failed with.

    A TaskGroup would lose a cancellation that comes together with a failure, and raise groups.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end_tasks(*tasks)
    for task in done:
        task.result()
