"""Clients of a real Kafka that fail the way clients were seen to: they stay up and bring nothing."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from infra.kafka.clients import Kafka, LogWatch, Record, RecordProducer, RecordReader


@dataclass
class FaultyKafka:
    """Readers are the real ones until a fault is switched on; then those that run have it, and new ones do not."""

    kafka: Kafka
    readers: list["FaultyReader"] = field(default_factory=list)
    #: Topics of which new readers are brought nothing.
    held_back: frozenset[str] = frozenset()
    #: No reader ends while `may_stop` is not set; `stopping` is set when the first is to.
    may_stop: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_stop.set()

    @property
    def topic_prefix(self) -> str:
        return self.kafka.topic_prefix

    def producer(self, *, client_id: str, batch_size_max_bytes: int) -> RecordProducer:
        return self.kafka.producer(client_id=client_id, batch_size_max_bytes=batch_size_max_bytes)

    def watch(self, *, client_id: str) -> LogWatch:
        return self.kafka.watch(client_id=client_id)

    def reader(self, *, client_id: str, wait_max_milliseconds: int, partition_fetch_max_bytes: int) -> RecordReader:
        reader = FaultyReader(
            self,
            self.kafka.reader(
                client_id=client_id,
                wait_max_milliseconds=wait_max_milliseconds,
                partition_fetch_max_bytes=partition_fetch_max_bytes,
            ),
        )
        self.readers.append(reader)
        return reader


@dataclass
class FaultyReader:
    """One reader and its faults."""

    kafka: FaultyKafka
    reader: RecordReader
    #: Brings nothing any more, as aiokafka does when its broker is gone.
    is_mute: bool = False
    #: Does not come back from the next call.
    is_stuck: bool = False
    #: Nothing is read while it is not set, as in a process that is stopped for a while.
    running: asyncio.Event = field(default_factory=asyncio.Event)
    standing: asyncio.Event = field(default_factory=asyncio.Event)
    #: How often it was read.
    reads: int = 0
    #: The topics it reads.
    assigned: frozenset[str] = frozenset()
    #: Where it goes on in each partition of which nothing comes, as if its leader did not answer this client.
    held_back: dict[TopicPartition, int] = field(default_factory=dict)
    is_stopped: bool = False

    def __post_init__(self) -> None:
        self.running.set()

    async def stand_still(self) -> None:
        """Clear `running` and wait until nothing is being read."""
        self.running.clear()
        await self.standing.wait()

    async def hold_back(self, topic: str) -> None:
        """Bring nothing of a topic any more."""
        self.held_back |= {each: at for each, at in (await self.reader.positions()).items() if each.topic == topic}

    async def start(self) -> None:
        await self.reader.start()

    async def partition_counts(self, topics: Sequence[str]) -> Mapping[str, int]:
        return await self.reader.partition_counts(topics)

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        return await self.reader.bounds(partitions)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.assigned = frozenset(partition.topic for partition in positions)
        self.held_back = {each: at for each, at in positions.items() if each.topic in self.kafka.held_back}
        self.reader.assign(positions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.reader.seek(partition, offset)

    async def read(self, *, timeout_milliseconds: int, records_max: int) -> Mapping[TopicPartition, Sequence[Record]]:
        self.reads += 1
        if not self.running.is_set():
            self.standing.set()
            await self.running.wait()
        if self.is_stuck:
            await asyncio.Event().wait()
        if self.is_mute:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_milliseconds / 1000):
                    await asyncio.Event().wait()
            return {}
        found = await self.reader.read(timeout_milliseconds=timeout_milliseconds, records_max=records_max)
        return {partition: records for partition, records in found.items() if partition not in self.held_back}

    async def positions(self) -> Mapping[TopicPartition, int]:
        return {**await self.reader.positions(), **self.held_back}

    async def stop(self) -> None:
        self.kafka.stopping.set()
        await self.kafka.may_stop.wait()
        await self.reader.stop()
        self.is_stopped = True
        if self.is_stuck:
            await asyncio.Event().wait()
