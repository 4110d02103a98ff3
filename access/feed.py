"""Follows the access topics into the cache: all partitions, own offsets, no consumer group (design §5 Feed).

A client that is away, silent or out of range is built anew; meanwhile the state ages, and past the bounds nobody is
answered. The cache is written by this task only.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from access.cache import BlockPartition, Cache, Change, Head, Partition, Quarantine, SwapRefusedError
from access.freshness import OWNERS, SECOND, Bounds, Clocks, HeartbeatLedger
from access.ingest import HEARTBEAT_TOPICS, STATE_TOPICS, HeartbeatRecord, Ingest, heartbeat_of, partitions_of
from contracts.events.heartbeat import Heartbeat
from contracts.topics import wire_name
from infra.kafka.clients import Kafka, Record, RecordReader

_log = structlog.get_logger("kisum.access")

_POLL_MILLISECONDS: Final = 500
#: Small while requests are served between two batches, large while nobody can be served yet.
_BATCH_RECORDS: Final = 200
_FILLING_BATCH_RECORDS: Final = 2000
_PARTITION_FETCH_MAX_BYTES: Final = 4 * 1024 * 1024
_PAUSE_MIN_SECONDS: Final = 0.2
_PAUSE_MAX_SECONDS: Final = 5.0
_POLL_TIMEOUT_SECONDS: Final = 30.0


class FeedSilentError(Exception):
    """No record for so long that the client is taken for stuck."""


class TopicsDifferError(Exception):
    """A topic is missing or has other partitions than the registry: what is read might not be all."""


class LogReplacedError(Exception):
    """The log is not the one the cache was filled from: shorter, or under another topic id."""


@dataclass
class _Replay:
    """One client and the generation it fills."""

    generation: int
    #: Where each partition ended when the client started.
    ends: dict[Partition, int]
    reader: RecordReader
    positions: dict[Partition, int]


class Feed:
    """Keeps a cache at the state of the topics. `run` never returns; cancel it to stop."""

    def __init__(
        self, *, kafka: Kafka, cache: Cache, ingest: Ingest, clocks: Clocks, bounds: Bounds, name: str
    ) -> None:
        self._kafka = kafka
        self._cache = cache
        self._ingest = ingest
        self._clocks = clocks
        self._bounds = bounds
        self._name = name
        self._topics = {wire_name(kafka.topic_prefix, topic): topic for topic in STATE_TOPICS}
        self._heartbeats = {
            wire_name(kafka.topic_prefix, topic.name): owner for owner, topic in HEARTBEAT_TOPICS.items()
        }
        self._partitions: list[Partition] = [
            (topic.name, number) for topic in STATE_TOPICS.values() for number in range(topic.partitions)
        ]
        self._ledgers = {owner: HeartbeatLedger(partitions_of(owner), clocks, bounds) for owner in OWNERS}
        self._topic_ids: dict[str, str] = {}
        self._received: list[tuple[str, HeartbeatRecord]] = []
        self._rebuild_wanted = asyncio.Event()
        self._heard_us = 0
        self._alarmed = False
        self._clients_started = 0

    def request_rebuild(self) -> None:
        """Fill the other generation from the beginning of the log and swap to it, while the active one serves."""
        self._rebuild_wanted.set()

    @property
    def is_rebuilding(self) -> bool:
        return self._rebuild_wanted.is_set()

    async def run(self) -> None:
        """Follow until cancelled. Every failure is logged, and the client built anew after a growing pause."""
        pause_seconds = _PAUSE_MIN_SECONDS
        while True:
            started = self._clocks.boot_us()
            try:
                await self._follow()
            except (LogReplacedError, OffsetOutOfRangeError) as error:
                _log.error("the log was replaced: the cache starts over", error=str(error))
                self._start_over()
            except (KafkaError, OSError, FeedSilentError, TopicsDifferError, TimeoutError) as error:
                _log.warning("the access feed was interrupted", error=f"{type(error).__name__}: {error}")
            except Exception:  # noqa: BLE001  a feed that ends would look like one that is only behind
                _log.exception("the access feed failed unexpectedly")
            if self._clocks.boot_us() - started > self._bounds.silence_seconds * SECOND:
                pause_seconds = _PAUSE_MIN_SECONDS
            self._raise_alarms()
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(_PAUSE_MAX_SECONDS, pause_seconds * 2)

    def _start_over(self) -> None:
        for ledger in self._ledgers.values():
            ledger.forget()
        self._topic_ids = {}
        self._cache.start_over()

    async def _follow(self) -> None:
        self._topic_ids = self._cache.topic_ids(self._cache.head().active)
        self._received = []
        self._heard_us = self._clocks.boot_us()
        live = await self._start(self._cache.head().active, with_heartbeats=True)
        rebuild: _Replay | None = None
        try:
            while True:
                await self._poll(live, _POLL_MILLISECONDS if rebuild is None else 0)
                if self._rebuild_wanted.is_set() and rebuild is None and self._cache.head().complete:
                    rebuild = await self._start(self._cache.empty_other(), with_heartbeats=False)
                if rebuild is not None and await self._advance_rebuild(live, rebuild):
                    # The next client goes on from the new generation's offsets.
                    return
                self._raise_alarms()
                if self._clocks.boot_us() - self._heard_us > self._bounds.silence_seconds * SECOND:
                    raise FeedSilentError(f"no record for {self._bounds.silence_seconds:g} s")
        finally:
            await live.reader.stop()
            if rebuild is not None:
                await rebuild.reader.stop()

    async def _advance_rebuild(self, live: _Replay, rebuild: _Replay) -> bool:
        await self._poll(rebuild, _POLL_MILLISECONDS // 5)
        if any(rebuild.positions[partition] < live.positions[partition] for partition in self._partitions):
            return False
        try:
            head = self._cache.swap()
        except SwapRefusedError:
            return False
        self._cache.note_topic_ids(head.active, self._topic_ids)
        self._rebuild_wanted.clear()
        _log.info("the cache was rebuilt from the log", generation=head.generation)
        return True

    async def _start(self, generation: int, *, with_heartbeats: bool) -> _Replay:
        """A client at a generation's offsets; raises LogReplacedError where the log does not hold them."""
        reader = self._kafka.reader(
            client_id=f"{self._name}-access",
            wait_max_milliseconds=_POLL_MILLISECONDS,
            partition_fetch_max_bytes=_PARTITION_FETCH_MAX_BYTES,
        )
        try:
            await reader.start()
            self._clients_started += 1
            await self._assert_partitions(reader)
            state = {self._partition(tp): tp for tp in self._state_partitions()}
            heartbeats = [TopicPartition(topic, 0) for topic in self._heartbeats] if with_heartbeats else []
            bounds = await reader.bounds([*state.values(), *heartbeats])
            positions = self._stored_positions(generation, {partition: bounds[tp] for partition, tp in state.items()})
            reader.assign(
                {
                    **{state[partition]: position for partition, position in positions.items()},
                    # Only the newest says anything.
                    **{tp: max(bounds[tp][0], bounds[tp][1] - 1) for tp in heartbeats},
                }
            )
        except BaseException:
            await reader.stop()
            raise
        return _Replay(generation, {partition: bounds[tp][1] for partition, tp in state.items()}, reader, positions)

    def _stored_positions(self, generation: int, bounds: Mapping[Partition, tuple[int, int]]) -> dict[Partition, int]:
        """Where a generation goes on in each partition; at the beginning where it has nothing of it."""
        stored = self._cache.positions(generation)
        positions = {partition: stored.get(partition, begin) for partition, (begin, _) in bounds.items()}
        for partition, (begin, end) in bounds.items():
            if not begin <= positions[partition] <= end:
                raise LogReplacedError(
                    f"{partition[0]}/{partition[1]} holds offsets {begin} to {end}, "
                    f"the cache goes on at {positions[partition]}"
                )
        return positions

    async def _assert_partitions(self, reader: RecordReader) -> None:
        found = await reader.partition_counts([*self._topics, *self._heartbeats])
        for wire, topic in self._topics.items():
            if found[wire] != STATE_TOPICS[topic].partitions:
                raise TopicsDifferError(f"{wire} has {found[wire]} partitions, not {STATE_TOPICS[topic].partitions}")
        for wire in self._heartbeats:
            if not found[wire]:
                raise TopicsDifferError(f"{wire} is missing")

    async def _poll(self, replay: _Replay, timeout_milliseconds: int) -> None:
        """Take what has come and apply it, with everything that follows from it, in one transaction."""
        filling = not self._cache.head().complete or replay.generation != self._cache.head().active
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with records.
        async with asyncio.timeout(_POLL_TIMEOUT_SECONDS):
            batches = await replay.reader.read(
                timeout_milliseconds=timeout_milliseconds,
                records_max=_FILLING_BATCH_RECORDS if filling else _BATCH_RECORDS,
            )
        changes: list[Change] = []
        for tp, batch in batches.items():
            if tp.topic in self._heartbeats:
                self._note_heartbeats(self._heartbeats[tp.topic], batch)
            else:
                changes += self._changes(tp, batch)
        if batches:
            self._heard_us = self._clocks.boot_us()
        moved = await self._moved(replay)
        if not moved and not changes and not self._received:
            return
        self._apply(replay, changes, moved)
        # A full buffer would otherwise keep every other task of the process waiting.
        await asyncio.sleep(0)

    async def _moved(self, replay: _Replay) -> dict[Partition, int]:
        """The partitions whose position moved; behind a compacted gap it may move without a record."""
        positions = {
            self._partition(tp): position
            for tp, position in (await replay.reader.positions()).items()
            if tp.topic in self._topics
        }
        return {
            partition: position for partition, position in positions.items() if position != replay.positions[partition]
        }

    def _apply(self, replay: _Replay, changes: list[Change], moved: dict[Partition, int]) -> None:
        received, self._received = self._received, []
        is_live = replay.generation == self._cache.head().active

        def revise(head: Head) -> Head:
            # The positions of a rebuild prove nothing of the generation that decides.
            return self._revised(head, replay, received) if is_live else head

        replay.positions.update(moved)
        was_complete = self._cache.head().complete
        head = self._cache.apply(replay.generation, changes, moved, revise)
        if head.complete and not was_complete:
            _log.info("the cache is complete", generation=head.generation)

    def _revised(self, head: Head, replay: _Replay, received: list[tuple[str, HeartbeatRecord]]) -> Head:
        owners = dict(zip(OWNERS, head.owners, strict=True))
        for owner, record in received:
            owners[owner] = self._ledgers[owner].receive(owners[owner], record.heartbeat, record.epoch, record.version)
        for owner, ledger in self._ledgers.items():
            owners[owner] = ledger.prove(owners[owner], replay.positions.__getitem__)
        revised = replace(head, owners=tuple(owners[owner] for owner in OWNERS))
        if revised.complete or any(replay.positions[partition] < end for partition, end in replay.ends.items()):
            return revised
        boot = self._clocks.boot_us()
        ages = [owner.age(boot) for owner in revised.owners]
        fresh = all(age is not None and age <= self._bounds.complete_seconds * SECOND for age in ages)
        return replace(revised, complete=fresh)

    def _note_heartbeats(self, owner: str, batch: Sequence[Record]) -> None:
        for record in batch:
            heartbeat = heartbeat_of(owner, record.value)
            if heartbeat is None:
                _log.error("a heartbeat cannot be read", owner=owner, offset=record.offset)
                continue
            known = self._cache.head().owners[OWNERS.index(owner)]
            if (heartbeat.epoch, heartbeat.version) > (known.epoch, known.heartbeat):
                self._assert_topic_ids(heartbeat.heartbeat)
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

    def _changes(self, tp: TopicPartition, batch: Sequence[Record]) -> Iterator[Change]:
        topic = self._topics[tp.topic]
        for record in batch:
            change = self._ingest.change_of(topic, tp.partition, record.key, record.value)
            if isinstance(change, Quarantine):
                _log.error(
                    "a record cannot be read: its subject is in quarantine",
                    topic=topic,
                    partition=tp.partition,
                    offset=record.offset,
                    why=change.why,
                )
            elif isinstance(change, BlockPartition):
                _log.error(
                    "a record's key cannot be read: its partition is in quarantine",
                    topic=topic,
                    partition=tp.partition,
                    offset=record.offset,
                )
            yield change

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

    def _state_partitions(self) -> Iterator[TopicPartition]:
        for wire, topic in self._topics.items():
            for number in range(STATE_TOPICS[topic].partitions):
                yield TopicPartition(wire, number)

    def _partition(self, tp: TopicPartition) -> Partition:
        return self._topics[tp.topic], tp.partition
