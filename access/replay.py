"""One Kafka client that fills one generation of the cache from where it stands.

A log may be replaced behind a reader's back: a topic made again under its name, or a tail that a broker lost and that
was written anew. Where the new log is as long as the old one was, no offset tells. So a client begins with the last
record its generation has read of each partition, and goes on only if that is still what it was.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from access.cache import Anchor, Cache, Partition
from access.ingest import HEARTBEAT_TOPICS, STATE_TOPICS
from contracts.topics import wire_name
from infra.kafka.clients import Kafka, Record, stop_reader

#: Two owners send a heartbeat each second: of the fetches that the broker keeps for so long few end with nothing. What
#: is asked on the same connection waits behind one, and a second is the shortest time after which that is given up.
POLL_MILLISECONDS: Final = 800
_PARTITION_FETCH_MAX_BYTES: Final = 4 * 1024 * 1024


class TopicsMissingError(Exception):
    """A topic is not there: what is read would not be all."""


class LogReplacedError(Exception):
    """The log is not the one the cache was filled from, or may have forgotten what the cache never saw."""


class HeartbeatsGoneError(Exception):
    """The heartbeats that were to come next are not kept any more: only the newest one matters."""


@dataclass
class Haul:
    """What one poll brought."""

    #: Heartbeat records with their owner, in their order.
    heartbeats: list[tuple[str, Record]] = field(default_factory=list)
    #: New records of states.
    states: dict[Partition, Sequence[Record]] = field(default_factory=dict)
    #: Partitions whose position moved; behind a compacted gap it may move without a record.
    moved: dict[Partition, int] = field(default_factory=dict)
    #: Whether a log was found to be the one it was.
    has_settled: bool = False


class Replay:
    """A client and the generation it fills."""

    def __init__(self, *, kafka: Kafka, cache: Cache, generation: int, name: str, answer_seconds: float) -> None:
        """Nothing is connected before `start`. A client that does not answer for `answer_seconds` is a TimeoutError."""
        self.generation = generation
        #: The next offset to apply of each partition.
        self.positions: dict[Partition, int] = {}
        #: Where each partition ended when reading began.
        self.ends: dict[Partition, int] = {}
        self._cache = cache
        self._answer_seconds = answer_seconds
        self._heartbeats = {
            wire_name(kafka.topic_prefix, topic.name): owner for owner, topic in HEARTBEAT_TOPICS.items()
        }
        self._topics = {wire_name(kafka.topic_prefix, topic): topic for topic in STATE_TOPICS}
        self._partitions = {
            TopicPartition(wire, number): (topic, number)
            for wire, topic in self._topics.items()
            for number in range(STATE_TOPICS[topic].partitions)
        }
        #: The anchors that were not seen again yet.
        self._anchors: dict[Partition, Anchor] = {}
        self._reader = kafka.reader(
            client_id=f"{name}-access",
            wait_max_milliseconds=POLL_MILLISECONDS,
            partition_fetch_max_bytes=_PARTITION_FETCH_MAX_BYTES,
        )

    async def start(self) -> None:
        """Connect, and see that the topics are those of the registry. Raises LogReplacedError, TopicsMissingError."""
        async with asyncio.timeout(self._answer_seconds):
            await self._reader.start()
            found = await self._reader.partition_counts([*self._topics, *self._heartbeats])
        for wire in (*self._topics, *self._heartbeats):
            if not found[wire]:
                raise TopicsMissingError(f"{wire} is missing")
        for wire, topic in self._topics.items():
            if found[wire] != STATE_TOPICS[topic].partitions:
                # Keys have moved to other partitions, and their old states have not.
                raise LogReplacedError(f"{wire} has {found[wire]} partitions, not {STATE_TOPICS[topic].partitions}")

    async def follow_heartbeats(self) -> frozenset[str]:
        """Read heartbeats only, from the newest of each owner on; returns the owners that have one."""
        partitions = [TopicPartition(wire, 0) for wire in self._heartbeats]
        async with asyncio.timeout(self._answer_seconds):
            bounds = await self._reader.bounds(partitions)
        self._reader.assign({tp: max(begin, end - 1) for tp, (begin, end) in bounds.items()})
        return frozenset(self._heartbeats[tp.topic] for tp, (begin, end) in bounds.items() if begin < end)

    async def follow_states(self) -> None:
        """Read states, from where the generation stands, beside what is read already. Raises LogReplacedError."""
        async with asyncio.timeout(self._answer_seconds):
            others = await self._reader.positions()
            bounds = await self._reader.bounds(list(self._partitions))
        stored = self._cache.positions(self.generation)
        self._anchors = self._cache.anchors(self.generation)
        for tp, partition in self._partitions.items():
            begin, end = bounds[tp]
            self.ends[partition] = end
            self.positions[partition] = position = stored.get(partition, begin)
            if not begin <= position <= end:
                raise LogReplacedError(
                    f"{partition[0]}/{partition[1]} holds offsets {begin} to {end}, the cache goes on at {position}"
                )
        self._reader.assign(
            {
                **others,
                **{
                    tp: self._anchors[partition].offset if partition in self._anchors else self.positions[partition]
                    for tp, partition in self._partitions.items()
                },
            }
        )

    def applied(self, partition: Partition) -> int:
        """Below which offset all is applied; -1 while it is not known whether the log is still the same."""
        return -1 if partition in self._anchors else self.positions[partition]

    @property
    def is_at_ends(self) -> bool:
        """Whether everything is applied that was there when reading began."""
        return all(self.applied(partition) >= end for partition, end in self.ends.items())

    def is_behind(self, other: "Replay") -> bool:
        """Whether it has read less of any partition."""
        return any(self.applied(partition) < position for partition, position in other.positions.items())

    async def poll(self, *, timeout_milliseconds: int, records_max: int) -> Haul:
        """What has come. The caller applies it and then tells `advance`.

        Raises LogReplacedError, HeartbeatsGoneError, TimeoutError.
        """
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with records.
        async with asyncio.timeout(self._answer_seconds):
            try:
                batches = await self._reader.read(timeout_milliseconds=timeout_milliseconds, records_max=records_max)
            except OffsetOutOfRangeError as error:
                raise self._out_of_range(error) from None
            positions = await self._reader.positions()
        haul = Haul()
        for tp, batch in batches.items():
            if tp.topic in self._heartbeats:
                haul.heartbeats += [(self._heartbeats[tp.topic], record) for record in batch]
            elif fresh := list(self._fresh(self._partitions[tp], batch)):
                haul.states[self._partitions[tp]] = fresh
        for tp, position in positions.items():
            partition = self._partitions.get(tp)
            if partition is None:
                continue
            if partition in self._anchors and position > self._anchors[partition].offset:
                del self._anchors[partition]
                haul.has_settled = True
            if position > self.positions[partition]:
                haul.moved[partition] = position
        return haul

    def advance(self, moved: Mapping[Partition, int]) -> None:
        """Note what was applied."""
        self.positions.update(moved)

    async def stop(self) -> None:
        """End the client, also where the task is cancelled meanwhile. One that does not end in time is left alone."""
        await stop_reader(self._reader)

    def _fresh(self, partition: Partition, batch: Iterable[Record]) -> Iterator[Record]:
        """What the generation has not read yet. Raises LogReplacedError where what it read last is another record."""
        anchor = self._anchors.get(partition)
        for record in batch:
            if record.offset >= self.positions[partition]:
                yield record
            elif anchor is not None and anchor != Anchor.of(record.offset, record.key, record.value):
                # Compaction takes records away and never changes one, so that an anchor may be gone, but not another.
                raise LogReplacedError(f"{partition[0]}/{partition[1]} has another record at {record.offset}")

    def _out_of_range(self, error: OffsetOutOfRangeError) -> Exception:
        (asked, *_) = error.args
        if all(tp.topic in self._heartbeats for tp in asked):
            return HeartbeatsGoneError("the next heartbeats are gone from the log")
        return LogReplacedError(f"the log does not hold the next offsets: {asked}")
