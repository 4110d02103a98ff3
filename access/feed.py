"""Follows the access topics into the cache: all partitions, own offsets, no consumer group (design §5 Feed, Rebuild).

A client that is away, silent or out of range is built anew; meanwhile the state ages, and past the bounds nobody is
answered. The cache is written by this task only, in the one process whose turn it is.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

import structlog
from aiokafka.errors import KafkaError

from access.cache import (
    Anchor,
    BlockPartition,
    Cache,
    Change,
    Comparison,
    Flag,
    Head,
    Partition,
    Quarantine,
    SwapRefusedError,
    Upsert,
)
from access.freshness import OWNERS, SECOND, Bounds, Clocks, HeartbeatLedger
from access.ingest import STATE_TOPICS, TOPIC_OF_PREFIX, HeartbeatRecord, Ingest, heartbeat_of, partitions_of
from access.records import microseconds, subject_of
from access.replay import (
    POLL_MILLISECONDS,
    Haul,
    HeartbeatsGoneError,
    LogReplacedError,
    Replay,
    TopicsMissingError,
)
from contracts.events.heartbeat import Heartbeat
from infra.kafka.clients import Kafka, Record

_log = structlog.get_logger("kisum.access")

#: Small while requests are served between two batches, larger for a rebuild, which has to gain on the live one, and
#: large while nobody can be served yet.
_BATCH_RECORDS: Final = 200
_REBUILD_BATCH_RECORDS: Final = 500
_FILLING_BATCH_RECORDS: Final = 2000
_COMPARED_RECORDS: Final = 1000
_REBUILD_POLL_MILLISECONDS: Final = 100
_CARRIED_SHOWN_MAX: Final = 100
_PAUSE_MIN_SECONDS: Final = 0.2
_PAUSE_MAX_SECONDS: Final = 5.0
#: Heartbeats come each second. What comes after so long a silence may come from another log.
_HUSH_SECONDS: Final = 5.0
#: An owner looks at its logs between any two heartbeats. The next one may be from before it knew, the one after it not.
_UNPROVING_HEARTBEATS: Final = 1
#: Half of how long the log keeps a withdrawal: who was away for longer may have missed one.
_CHECKPOINT_AGE_MAX_MICROSECONDS: Final = (
    min(int(topic.config["delete.retention.ms"]) for topic in STATE_TOPICS.values()) * 1000 // 2
)


class FeedSilentError(Exception):
    """No record for so long that the client is taken for stuck."""


class HushError(Exception):
    """News after which the log may be another: the client is built anew, which looks whether it is still the same."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A state that decides from now on: a record of the log that was newer than what the active generation held."""

    topic: str
    event_id: UUID
    epoch: int
    version: int
    #: The subject, as the cache keys it.
    key: bytes


#: Told of each committed transaction that changed what decides. Must neither block nor raise.
OnApplied = Callable[[Sequence[Applied]], None]


@dataclass
class _Rebuild:
    """The other generation on its way to become the active one."""

    replay: Replay
    comparison: Comparison


class Feed:
    """Keeps a cache at the state of the topics. `run` never returns; cancel it to stop."""

    def __init__(
        self,
        *,
        kafka: Kafka,
        cache: Cache,
        ingest: Ingest,
        clocks: Clocks,
        bounds: Bounds,
        name: str,
        on_applied: OnApplied | None = None,
    ) -> None:
        self._kafka = kafka
        self._cache = cache
        self._ingest = ingest
        self._clocks = clocks
        self._bounds = bounds
        self._name = name
        self._on_applied = on_applied
        self._ledgers = {owner: HeartbeatLedger(partitions_of(owner), clocks, bounds) for owner in OWNERS}
        self._topic_ids: dict[str, str] = {}
        self._received: list[tuple[str, HeartbeatRecord]] = []
        #: By owner, the heartbeats that must come before one proves anything, while the cache is filled.
        self._unproving = dict.fromkeys(OWNERS, 0)
        #: By owner, the newest epoch for which a client was built anew.
        self._looked_at_epoch = dict.fromkeys(OWNERS, 0)
        self._log_is_replaced = False
        self._heard_us = 0
        self._alarmed = False

    async def run(self) -> None:
        """Follow until cancelled. Every failure is logged, and the client built anew after a growing pause."""
        pause_seconds = _PAUSE_MIN_SECONDS
        while True:
            started = self._clocks.boot_us()
            try:
                self._raise_alarms()
                if not self._log_is_replaced:
                    await self._follow()
                    continue
            except HushError as error:
                _log.info("the access feed connects anew", reason=str(error))
                continue
            except LogReplacedError as error:
                _log.error("the log was replaced: the cache starts over", error=str(error))
                self._log_is_replaced = True
            except (
                KafkaError,
                OSError,
                FeedSilentError,
                HeartbeatsGoneError,
                TopicsMissingError,
                TimeoutError,
            ) as error:
                _log.warning("the access feed was interrupted", error=f"{type(error).__name__}: {error}")
            except Exception:  # noqa: BLE001  a feed that ends would look like one that is only behind
                _log.exception("the access feed failed unexpectedly")
            if self._log_is_replaced:
                self._start_over()
            if self._clocks.boot_us() - started > self._bounds.silence_seconds * SECOND:
                pause_seconds = _PAUSE_MIN_SECONDS
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(_PAUSE_MAX_SECONDS, pause_seconds * 2)

    def _start_over(self) -> None:
        """Empty the cache. Where that fails it is tried again, and nothing is followed before it is done."""
        try:
            self._cache.start_over()
        except Exception:  # noqa: BLE001  the same
            _log.exception("the cache could not be emptied")
            return
        for ledger in self._ledgers.values():
            ledger.forget()
        self._topic_ids = {}
        self._log_is_replaced = False

    async def _follow(self) -> None:
        """Follow with one client. Returns after a swap: the next one goes on from the new generation's offsets."""
        self._topic_ids = self._cache.topic_ids(self._cache.head().active)
        self._received = []
        head = self._cache.head()
        for owner in OWNERS:
            # What was read before may have ended with the loss of a log, as in `_distrust`, as may have the generation
            # before this one. The newest heartbeat there is comes first.
            was_begun = not head.complete and (head.generation > 1 or bool(self._cache.positions(head.active)))
            self._unproving[owner] = 1 + _UNPROVING_HEARTBEATS if was_begun else 0
        live = self._replay(self._cache.head().active)
        rebuild: _Rebuild | None = None
        # Who is cancelled while one client ends has to end the other too.
        async with AsyncExitStack() as clients:
            clients.push_async_callback(live.stop)
            await live.start()
            await self._hear_owners(live)
            await live.follow_states()
            self._heard_us = self._clocks.boot_us()
            while True:
                changed = await self._take(live, POLL_MILLISECONDS if rebuild is None else 0)
                if rebuild is None:
                    rebuild = await self._begin_rebuild(clients)
                elif await self._advance(rebuild, live, changed):
                    return
                self._raise_alarms()
                self._assert_heard()

    def _replay(self, generation: int) -> Replay:
        return Replay(
            kafka=self._kafka,
            cache=self._cache,
            generation=generation,
            name=self._name,
            answer_seconds=self._bounds.answer_seconds,
        )

    async def _hear_owners(self, live: Replay) -> None:
        """Read heartbeats before anything else, so that nothing is read of a topic nobody has told the id of.

        Where the cache was filled before it knows the ids, and what is the newest heartbeat is enough.
        """
        awaited = set(await live.follow_heartbeats())
        self._heard_us = self._clocks.boot_us()
        while awaited or not STATE_TOPICS.keys() <= self._topic_ids.keys():
            haul = await live.poll(timeout_milliseconds=POLL_MILLISECONDS, records_max=_BATCH_RECORDS)
            self._hear(haul)
            awaited -= {owner for owner, _ in haul.heartbeats}
            self._assert_heard()

    async def _take(self, replay: Replay, timeout_milliseconds: int) -> list[Upsert | Quarantine]:
        """Take what has come and apply it, with everything that follows from it, in one transaction.

        Returns what changed a subject.
        """
        head = self._cache.head()
        is_live = replay.generation == head.active
        haul = await replay.poll(
            timeout_milliseconds=timeout_milliseconds,
            records_max=(_BATCH_RECORDS if is_live else _REBUILD_BATCH_RECORDS)
            if head.complete
            else _FILLING_BATCH_RECORDS,
        )
        if is_live:
            self._hear(haul)
        if not (haul.moved or haul.states or haul.has_settled or (self._received and is_live)):
            return []
        changes = [change for partition, batch in haul.states.items() for change in self._changes(partition, batch)]
        anchors = {
            partition: Anchor.of(batch[-1].offset, batch[-1].key, batch[-1].value)
            for partition, batch in haul.states.items()
        }
        replay.advance(haul.moved)
        applied: list[Upsert | Quarantine] = []
        revised = self._cache.apply(
            replay.generation,
            changes,
            haul.moved,
            # The positions of a rebuild prove nothing of the generation that decides.
            (lambda known: self._revised(known, replay)) if is_live else None,
            anchors=anchors,
            applied=applied,
        )
        if revised.complete and not head.complete:
            _log.info("the cache is complete", generation=revised.generation)
        if is_live:
            self._tell(applied)
        # A full buffer would otherwise keep every other task of the process waiting.
        await asyncio.sleep(0)
        return applied

    def _tell(self, applied: Sequence[Upsert | Quarantine]) -> None:
        if self._on_applied is None:
            return
        told = [
            Applied(TOPIC_OF_PREFIX[change.key[:1]], change.event_id, change.epoch, change.version, change.key)
            for change in applied
            if isinstance(change, Upsert) and change.event_id is not None
        ]
        if told:
            self._on_applied(told)

    def _revised(self, head: Head, replay: Replay) -> Head:
        """The head after a batch: what heartbeats said, what they prove by now, and whether all of it is there."""
        received, self._received = self._received, []
        owners = dict(zip(OWNERS, head.owners, strict=True))
        for owner, record in received:
            known, ledger = owners[owner], self._ledgers[owner]
            owners[owner] = ledger.receive(known, record.heartbeat, record.epoch, record.version)
            if self._unproving[owner]:
                self._unproving[owner] -= 1
                ledger.forget()
        for owner, ledger in self._ledgers.items():
            owners[owner] = ledger.prove(owners[owner], replay.applied)
        revised = replace(head, owners=tuple(owners[owner] for owner in OWNERS))
        if revised.complete or not replay.is_at_ends:
            return revised
        boot = self._clocks.boot_us()
        ages = [owner.age(boot) for owner in revised.owners]
        fresh = all(age is not None and age <= self._bounds.complete_seconds * SECOND for age in ages)
        return replace(revised, complete=fresh)

    # Rebuild.

    async def _begin_rebuild(self, clients: AsyncExitStack) -> _Rebuild | None:
        """A rebuild, where one was asked for and the active generation can serve meanwhile; its client ends with the
        others.
        """
        asked, done = self._cache.rebuilds()
        if asked == done or not self._cache.head().complete:
            return None
        _log.info("the cache is rebuilt from the log", request=asked)
        replay = self._replay(self._cache.empty_other())
        clients.push_async_callback(replay.stop)
        await replay.start()
        await replay.follow_states()
        return _Rebuild(replay, Comparison(request=asked))

    async def _advance(self, rebuild: _Rebuild, live: Replay, changed: Sequence[Upsert | Quarantine]) -> bool:
        """Read on, compare, and at the end swap; whether it came to that."""
        comparison = rebuild.comparison
        if comparison.has_begun:
            comparison.changed.update(change.key for change in changed)
        # Neither client need have waited for anything, and everything else of the process would wait for this.
        await asyncio.sleep(0)
        is_waiting = rebuild.replay.is_behind(live) or not comparison.has_begun
        await self._take(rebuild.replay, _REBUILD_POLL_MILLISECONDS if is_waiting else 0)
        if rebuild.replay.is_behind(live):
            return False
        if not comparison.is_over or len(comparison.changed) > _COMPARED_RECORDS:
            self._report(self._cache.compare(comparison, _COMPARED_RECORDS))
            return False
        try:
            head, carried = self._cache.swap(comparison)
        except SwapRefusedError:
            return False
        self._report(carried)
        _log.info("the cache was rebuilt from the log", generation=head.generation)
        return True

    @staticmethod
    def _report(carried: Sequence[Flag]) -> None:
        for flag in carried[:_CARRIED_SHOWN_MAX]:
            kind, subject = subject_of(flag.key)
            _log.error(
                "the log has not what was applied: it is in quarantine", kind=kind, subject=subject, why=flag.why
            )
        if len(carried) > _CARRIED_SHOWN_MAX:
            _log.error("the log has not what was applied, of more subjects", count=len(carried))

    # Heartbeats.

    def _hear(self, haul: Haul) -> None:
        """Note what came. Raises LogReplacedError where it tells of that.

        Raises HushError where it came after a silence, and where an owner was restored: what its log had lost before
        then is known to nobody but who has read it.
        """
        if not haul.heartbeats and not haul.states:
            return
        now = self._clocks.boot_us()
        if now - self._heard_us > _HUSH_SECONDS * SECOND:
            raise HushError(f"nothing was heard for {(now - self._heard_us) / SECOND:.1f} s")
        self._heard_us = now
        for owner, record in haul.heartbeats:
            heartbeat = heartbeat_of(owner, record.value)
            if heartbeat is None:
                _log.error("a heartbeat cannot be read", owner=owner, offset=record.offset)
                continue
            known = self._cache.head().owners[OWNERS.index(owner)]
            if (heartbeat.epoch, heartbeat.version) > (known.epoch, known.heartbeat):
                if known.epoch and self._looked_at_epoch[owner] < heartbeat.epoch != known.epoch:
                    self._looked_at_epoch[owner] = heartbeat.epoch
                    raise HushError(f"{owner} was restored")
                self._assert_topic_ids(heartbeat.heartbeat)
                self._assert_nothing_missed(owner, known.as_of, heartbeat.heartbeat)
                self._received.append((owner, heartbeat))

    def _assert_topic_ids(self, heartbeat: Heartbeat) -> None:
        """Raises LogReplacedError where a topic is not the one the cache was filled from."""
        told = {position.topic: position.topic_id for position in heartbeat.positions if position.topic in STATE_TOPICS}
        for topic, topic_id in told.items():
            known = self._topic_ids.get(topic)
            if known is not None and known != topic_id:
                raise LogReplacedError(f"{topic} is {topic_id}, the cache was filled from {known}")
        new = {topic: topic_id for topic, topic_id in told.items() if topic not in self._topic_ids}
        if new:
            self._topic_ids |= new
            self._cache.note_topic_ids(self._cache.head().active, new)

    def _assert_nothing_missed(self, owner: str, known_as_of: int, heartbeat: Heartbeat) -> None:
        """Raises LogReplacedError where the cache was last fresh so long ago that the log may have forgotten news.

        Both times are the owner's. Whether it was the owner's clock that leapt, this machine's says.
        """
        as_of = microseconds(heartbeat.as_of)
        away = as_of - known_as_of
        leapt = as_of - self._clocks.wall_us() > self._bounds.skew_seconds * SECOND
        if known_as_of and not leapt and away > _CHECKPOINT_AGE_MAX_MICROSECONDS:
            raise LogReplacedError(f"the cache has not heard of {owner} for {away / SECOND:.0f} s")

    def _assert_heard(self) -> None:
        if self._clocks.boot_us() - self._heard_us > self._bounds.silence_seconds * SECOND:
            raise FeedSilentError(f"no record for {self._bounds.silence_seconds:g} s")

    def _changes(self, partition: Partition, batch: Sequence[Record]) -> Iterator[Change]:
        topic, number = partition
        for record in batch:
            if not record.key and record.value is None:
                self._distrust(STATE_TOPICS[topic].owner)
            change = self._ingest.change_of(topic, number, record.key, record.value)
            if isinstance(change, Quarantine):
                _log.error(
                    "a record cannot be read: its subject is in quarantine",
                    topic=topic,
                    partition=number,
                    offset=record.offset,
                    why=change.why,
                )
            elif isinstance(change, BlockPartition):
                _log.error(
                    "a record of no subject of its partition cannot be read: the partition is in quarantine",
                    topic=topic,
                    partition=number,
                    offset=record.offset,
                )
            yield change

    def _distrust(self, owner: str) -> None:
        """A log of this owner was lost before the record that was just read: older heartbeats speak of another one.

        A cache that is complete has applied what they spoke of. One that is being filled from what is left has not.
        """
        if not self._cache.head().complete:
            self._ledgers[owner].forget()
            self._unproving[owner] = _UNPROVING_HEARTBEATS

    def _raise_alarms(self) -> None:
        boot = self._clocks.boot_us()
        ages = {owner: known.age(boot) for owner, known in zip(OWNERS, self._cache.head().owners, strict=True)}
        stale = {
            owner: None if age is None else round(age / SECOND, 1)
            for owner, age in ages.items()
            if age is None or age > self._bounds.soft_seconds * SECOND
        }
        if bool(stale) != self._alarmed and self._cache.head().complete:
            self._alarmed = bool(stale)
            if stale:
                _log.error("the access state is stale", ages_seconds=stale, bound_seconds=self._bounds.soft_seconds)
            else:
                _log.info("the access state is fresh again")
