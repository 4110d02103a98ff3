"""Kafka for simulations: the log as a broker keeps it, and clients with the semantics of the real ones.

`SimulatedKafka` is a `Kafka` as infra/kafka/clients.py asks for, and passes the same suite as the real one
(tests/integration/test_kafka_clients.py). What it does beyond is what a cluster does on its bad days:

- Each message takes a time of its own, so keys of different partitions overtake each other. Within a partition one
  producer has one batch under way, as aiokafka's, and the broker knows a batch it has seen.
- A batch can come to be in the log without its sender hearing of it, and long after its producer was given up or its
  process killed.
- A reader reads by a topic's name and keeps what it has fetched: made again, a topic is read on at the old offset if
  it has one. While the broker is away a reader gets nothing and no error.

Time is the loop's, chance comes from the given `Random`, and nothing else decides.
"""

import asyncio
import base64
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from random import Random
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
)

from contracts.topics import TOPICS, Topic, wire_name
from infra.kafka.clients import LogWatch, Outgoing, Record, RecordProducer, RecordReader, Seen, WatchUnavailableError
from infra.kafka.producer import REQUEST_TIMEOUT_SECONDS
from tests.simulation.loop import Process, SimulatedLoop

#: What the real clients wait for an answer: aiokafka's consumer by default, the watch by its own setting.
_READER_TIMEOUT_SECONDS: Final = 40.0
_WATCH_TIMEOUT_SECONDS: Final = 3.0
_RETRY_SECONDS: Final = (0.05, 0.4)
_SLOW_LATENCY_SECONDS: Final = (0.05, 1.5)
_FETCH_RECORDS_MAX: Final = 500
#: What Kafka's format adds to a batch and to each record, about.
_BATCH_OVERHEAD_BYTES: Final = 61
_RECORD_OVERHEAD_BYTES: Final = 21
_OFFSET: Final = attrgetter("offset")
_UNKNOWN_OFFSET: Final = -1


@dataclass(slots=True)
class SimulatedRecord:
    """A record of the log. The timestamp is the loop's time in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Network:
    """How messages travel. Calm by default; a history may change any of it at any time. Shares are of 1."""

    latency_seconds: tuple[float, float] = (0.0005, 0.004)
    #: Batches that are under way for `late_seconds`, whatever becomes of their producer meanwhile.
    late_batches: float = 0.0
    late_seconds: tuple[float, float] = (0.5, 20.0)
    #: Batches that never arrive; the producer sends them again.
    lost_batches: float = 0.0
    #: Batches that are in the log and whose acknowledgement is lost: the producer hears of an error, or nothing, or
    #: loses the connection and sends again.
    lost_acknowledgements: float = 0.0
    #: Batches under way when their producer is given up or its process killed that come to be in the log all the same;
    #: half of them after `late_seconds` more.
    orphans: float = 0.5
    #: Batches sent again that the broker knows, but not the offset of: they are acknowledged with -1.
    forgotten_offsets: float = 0.0
    #: Fetches that bring only the first part of what there is.
    partial_fetches: float = 0.2


class SimulatedBroker:
    """The cluster, and what can happen to it. Topics are called by their names in the registry.

    :ivar network: how messages travel.
    :ivar refuses: given a topic and a record, whether the log refuses it for its size; none refuses only what is
        larger than the topic takes.
    :ivar process: the cluster's own process in the loop.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        *,
        topics: Iterable[Topic] = TOPICS,
        topic_prefix: str = "",
    ) -> None:
        self.topic_prefix = topic_prefix
        self.network = Network()
        self.refuses: Callable[[str, Outgoing], bool] | None = None
        self.process = loop.process("kafka")
        self._loop = loop
        self._random = random
        self._sessions = 0
        self._topics: dict[str, _Topic] = {}
        for topic in topics:
            self._make(topic)
        self._readers: dict[_Reader, None] = {}
        self._down_until = 0.0
        self._slow_until = 0.0
        self._losing_until = 0.0
        self._cut_until: dict[Process, float] = {}
        self._partitions_away_until: dict[TopicPartition, float] = {}
        self._refuses_connections = False

    # What a history and its judge may look at.

    def topic_id(self, topic: str) -> str:
        return self._named(topic).topic_id

    def records(self, topic: str, partition: int | None = None) -> list[SimulatedRecord]:
        """What the log holds, in the order of offsets, partition by partition unless one is named."""
        logs = self._named(topic).logs
        return [record for log in (logs if partition is None else [logs[partition]]) for record in log.records]

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset the partition still has, and its next."""
        log = self._named(topic).logs[partition]
        return log.begin, log.end

    # What can happen.

    def go_down(self, seconds: float) -> None:
        """Nobody reaches the cluster for so long; whether connections are refused or time out is drawn."""
        self._refuses_connections = self._random.random() < 0.5
        self._down_until = max(self._down_until, self._loop.time() + seconds)
        self._come_back_at(self._down_until)

    def partition_reader(self, process: Process, seconds: float) -> None:
        """No client of the process, of whatever kind, reaches the cluster for so long; the other processes do."""
        until = max(self._cut_until.get(process, 0.0), self._loop.time() + seconds)
        self._cut_until[process] = until
        self._come_back_at(until)

    def lead_nobody(self, topic: str, partition: int, seconds: float) -> None:
        """A partition has no leader for so long: nothing is written to it, everything else goes on."""
        wire = TopicPartition(wire_name(self.topic_prefix, topic), partition)
        self._partitions_away_until[wire] = max(self._partitions_away_until.get(wire, 0.0), self._loop.time() + seconds)

    def slow(self, seconds: float) -> None:
        """For so long each message takes up to one and a half seconds."""
        self._slow_until = max(self._slow_until, self._loop.time() + seconds)

    def lose_acknowledgements(self, seconds: float) -> None:
        """For so long half of the batches reach the log without their senders hearing of it as they should."""
        self._losing_until = max(self._losing_until, self._loop.time() + seconds)

    def heal(self) -> None:
        """All faults of the cluster and its network are over; what is under way stays so."""
        self.network = Network(latency_seconds=self.network.latency_seconds)
        self.refuses = None
        self._down_until = self._slow_until = self._losing_until = 0.0
        self._cut_until.clear()
        self._partitions_away_until.clear()
        self._come_back()

    def redeliver(self, process: Process, count: int) -> None:
        """Have the readers of a process get the last records of each partition once more.

        aiokafka without a group never does this by itself; a client that starts again from stored offsets, or follows
        another that did, sees the same.
        """
        for reader in self._readers:
            if reader.process is process:
                reader.go_back(count)

    def compact(self, topic: str, *, lag_seconds: float | None = None, lag_records: int = 0) -> None:
        """Keep of each key the record with the highest offset, among those older than the lag and not of the newest.

        Offsets stay what they are, and the end where it is. A record without a value is collected by the first run
        that comes after the topic's `delete.retention.ms` since the run that kept it.

        :param lag_seconds: the topic's own `min.compaction.lag.ms` unless given.
        """
        found = self._named(topic)
        lag_ms = found.setting_ms("min.compaction.lag.ms") if lag_seconds is None else int(lag_seconds * 1000)
        for log in found.logs:
            log.compact(
                self._now_ms(), lag_ms=lag_ms, spared=lag_records, tombstone_ms=found.setting_ms("delete.retention.ms")
            )

    def final_compaction(self) -> None:
        """Of every key in every state topic one record is left, the one with the highest offset."""
        for topic in self._topics.values():
            if topic.spec.cleanup == "compact":
                self.compact(topic.spec.name, lag_seconds=0.0)

    def collect_heartbeats(self) -> None:
        """Remove what topics with a retention kept longer than that; what is left begins later."""
        for topic in self._topics.values():
            if topic.spec.cleanup == "delete" and topic.spec.retention_ms is not None:
                before_ms = int(self._loop.time() * 1000) - topic.spec.retention_ms
                for partition, log in enumerate(topic.logs):
                    kept = next((record.offset for record in log.records if record.timestamp >= before_ms), log.end)
                    self.trim(topic.spec.name, partition, kept)

    def trim(self, topic: str, partition: int, begin: int) -> None:
        """Remove the records before an offset, as retention does."""
        self._named(topic).logs[partition].begin_at(begin)
        self._log_changed(topic, partition)

    def recreate(self, topic: str) -> None:
        """Delete the topic with all it holds and make it again: another id, offsets from 0."""
        found = self._named(topic)
        self._make(found.spec)
        for partition in range(found.spec.partitions):
            self._log_changed(topic, partition)

    def lose_tail(self, topic: str, partition: int, count: int) -> None:
        """The last offsets are as if never given out, as after the election of a leader that did not have them."""
        log = self._named(topic).logs[partition]
        log.end_at(log.end - count)
        self._log_changed(topic, partition)

    def has_lost_tail(self, topic: str, partition: int) -> bool:
        """Whether the log has not come to where it was before it lost its tail."""
        log = self._named(topic).logs[partition]
        return log.end < log.furthest_end

    def own_tail(self, topic: str, partition: int) -> int:
        """How many offsets were given out since the last record from somewhere."""
        log = self._named(topic).logs[partition]
        return max(0, log.end - log.foreign_end)

    def append_raw(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> int:
        """A record from somewhere, in the log at once; its offset."""
        log = self._named(topic).logs[partition]
        log.append(key, value, headers, self._now_ms())
        log.foreign_end = log.end
        self._log_changed(topic, partition)
        return log.end - 1

    def duplicate(self, topic: str, partition: int, offset: int) -> int:
        """The record once more at the end of its log, as an older sender would leave it; its new offset.

        Raises LookupError where the log does not hold the offset.
        """
        for record in self._named(topic).logs[partition].records:
            if record.offset == offset:
                return self.append_raw(topic, partition, record.key, record.value, record.headers)
        raise LookupError(f"{topic}/{partition} has no record at {offset}")

    # What its clients ask of it.

    def _make(self, spec: Topic) -> None:
        wire = wire_name(self.topic_prefix, spec.name)
        self._topics[wire] = _Topic.made(spec, wire, self._random)

    def _new_number(self) -> int:
        self._sessions += 1
        return self._sessions

    def _retry_seconds(self) -> float:
        return self._random.uniform(*_RETRY_SECONDS)

    def _named(self, topic: str) -> "_Topic":
        return self._topics[wire_name(self.topic_prefix, topic)]

    def _log(self, topic: str, partition: int) -> "_Log | None":
        """A partition by its topic's name on the wire."""
        found = self._topics.get(topic)
        return None if found is None else found.logs[partition]

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def _is_away(self, process: Process) -> bool:
        now = self._loop.time()
        return now < self._down_until or now < self._cut_until.get(process, 0.0)

    def _happens(self, share: float) -> bool:
        return share > 0 and self._random.random() < share

    def _latency(self) -> float:
        """Seconds that one message takes."""
        slow = self._loop.time() < self._slow_until
        return self._random.uniform(*(_SLOW_LATENCY_SECONDS if slow else self.network.latency_seconds))

    def _later(self, process: Process, seconds: float, callback: Callable[..., object], *args: object) -> None:
        self._loop.call_later(seconds, callback, *args, context=process.context)

    async def _reach(self, process: Process, client_id: str, timeout_seconds: float) -> None:
        """One message there and back. Raises KafkaConnectionError, at once or after the timeout."""
        deadline = self._loop.time() + timeout_seconds
        while True:
            await asyncio.sleep(self._latency())
            if not self._is_away(process):
                return
            if self._refuses_connections or self._loop.time() >= deadline:
                raise KafkaConnectionError(f"{client_id} of {process.name} does not reach the cluster")
            await asyncio.sleep(self._retry_seconds())

    def _come_back_at(self, when: float) -> None:
        self._loop.call_at(when, self._come_back, context=self.process.context)

    def _come_back(self) -> None:
        """Readers do not hear of an outage and fetch again after it."""
        for reader in self._readers:
            reader.fetch_all()

    def _log_changed(self, topic: str, partition: int) -> None:
        changed = TopicPartition(wire_name(self.topic_prefix, topic), partition)
        for reader in self._readers:
            reader.fetch(changed)

    def _forget(self, process: Process) -> None:
        for reader in [reader for reader in self._readers if reader.process is process]:
            del self._readers[reader]

    # The way of a batch: sent by its producer, received here, answered.

    def _send(self, batch: "_Batch") -> None:
        seconds = self._latency()
        if self._happens(self.network.late_batches):
            seconds += self._random.uniform(*self.network.late_seconds)
        if seconds >= REQUEST_TIMEOUT_SECONDS:
            self._send_again(batch, REQUEST_TIMEOUT_SECONDS)
        self._later(self.process, seconds, self._receive, batch)

    def _send_again(self, batch: "_Batch", seconds: float) -> None:
        producer = batch.producer
        self._later(producer.process, seconds, producer.send_again, batch)

    def _receive(self, batch: "_Batch") -> None:
        producer = batch.producer
        partition_away = self._loop.time() < self._partitions_away_until.get(batch.partition, 0.0)
        if partition_away or self._is_away(producer.process) or self._happens(self.network.lost_batches):
            self._send_again(batch, self._retry_seconds())
            return
        if producer.is_gone and not batch.is_orphan:
            if not self._happens(self.network.orphans):
                return
            batch.is_orphan = True
            if self._happens(0.5):
                self._later(self.process, self._random.uniform(*self.network.late_seconds), self._receive, batch)
                return
        topic = self._topics.get(batch.partition.topic)
        if topic is None:
            self._send_again(batch, self._retry_seconds())
        elif producer.number in topic.logs[batch.partition.partition].out_of_sequence:
            self._answer(batch, OutOfOrderSequenceNumber())
        elif self._refuses_any(topic, batch.records):
            self._answer(batch, MessageSizeTooLargeError())
        else:
            self._answer(batch, self._append(topic.logs[batch.partition.partition], batch))

    def _refuses_any(self, topic: "_Topic", records: Sequence[Outgoing]) -> bool:
        if _BATCH_OVERHEAD_BYTES + sum(map(_size_bytes, records)) > topic.batch_size_max_bytes:
            return True
        refuses = self.refuses
        return refuses is not None and any(refuses(topic.spec.name, record) for record in records)

    def _append(self, log: "_Log", batch: "_Batch") -> int:
        """The first offset of the batch, which may have been here before."""
        number, offset = log.sessions.get(batch.producer.number, (-1, -1))
        if batch.number <= number:
            forgotten = batch.number < number or self._happens(self.network.forgotten_offsets)
            return _UNKNOWN_OFFSET if forgotten else offset
        first = log.end
        now_ms = self._now_ms()
        for record in batch.records:
            log.append(record.key, record.value, record.headers, now_ms)
        log.sessions[batch.producer.number] = batch.number, first
        for reader in self._readers:
            reader.fetch(batch.partition)
        return first

    def _answer(self, batch: "_Batch", result: int | KafkaError) -> None:
        losing = 0.5 if self._loop.time() < self._losing_until else self.network.lost_acknowledgements
        if self._happens(losing):
            match self._random.randrange(3):
                case 0:  # Nothing is heard until the time limit of the request.
                    self._send_again(batch, REQUEST_TIMEOUT_SECONDS)
                    return
                case 1:  # The connection breaks.
                    self._send_again(batch, self._retry_seconds())
                    return
                case _:
                    result = self._random.choice((RequestTimedOutError, NotEnoughReplicasAfterAppendError))()
        self._later(self.process, self._latency(), self._deliver, batch, result)

    def _deliver(self, batch: "_Batch", result: int | KafkaError) -> None:
        process = batch.producer.process
        if self._is_away(process):
            self._send_again(batch, self._retry_seconds())
        else:
            # In the socket from now on; a frozen process takes it later.
            self._loop.call_soon(batch.producer.take_answer, batch, result, context=process.context)


@dataclass(frozen=True)
class SimulatedKafka:
    """The clients of one process, whose sockets close when it dies."""

    broker: SimulatedBroker
    process: Process

    def __post_init__(self) -> None:
        self.process.on_death(lambda: self.broker._forget(self.process))

    @property
    def topic_prefix(self) -> str:
        return self.broker.topic_prefix

    def producer(self, *, client_id: str, batch_size_max_bytes: int) -> RecordProducer:
        return _Producer(self.broker, self.process, client_id, batch_size_max_bytes)

    def reader(self, *, client_id: str, wait_max_milliseconds: int, partition_fetch_max_bytes: int) -> RecordReader:
        return _Reader(self.broker, self.process, client_id, wait_max_milliseconds, partition_fetch_max_bytes)

    def watch(self, *, client_id: str) -> LogWatch:
        return _Watch(self.broker, self.process, client_id)


class _Log:
    """One partition."""

    def __init__(self, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self.records: list[SimulatedRecord] = []
        self.begin = 0
        self.end = 0
        #: Where it ended before it lost its tail.
        self.furthest_end = 0
        #: Where it ended when the last record from somewhere came.
        self.foreign_end = 0
        #: By producer, its newest batch and that one's first offset.
        self.sessions: dict[int, tuple[int, int]] = {}
        #: Producers of which batches are gone.
        self.out_of_sequence: set[int] = set()
        #: When a tombstone that a compaction kept is to go, in milliseconds.
        self._horizons_ms: dict[int, int] = {}

    def append(
        self, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...], now_ms: int
    ) -> None:
        self.records.append(SimulatedRecord(self._topic, self._partition, self.end, now_ms, key, value, headers))
        self.end += 1

    def read(self, offset: int, size_max_bytes: int) -> tuple[list[SimulatedRecord], int]:
        """What a fetch from the offset brings, and where the next goes on."""
        start = bisect_left(self.records, offset, key=_OFFSET)
        found: list[SimulatedRecord] = []
        size_bytes = 0
        for record in self.records[start : start + _FETCH_RECORDS_MAX]:
            size_bytes += len(record.key or b"") + len(record.value or b"")
            if found and size_bytes > size_max_bytes:
                break
            found.append(record)
        whole = start + len(found) == len(self.records)
        # Behind the last record there may be offsets whose records were compacted away.
        return found, self.end if whole else found[-1].offset + 1

    def begin_at(self, offset: int) -> None:
        self.begin = max(self.begin, min(offset, self.end))
        del self.records[: bisect_left(self.records, self.begin, key=_OFFSET)]

    def end_at(self, offset: int) -> None:
        self.furthest_end = max(self.furthest_end, self.end)
        self.end = max(self.begin, min(offset, self.end))
        del self.records[bisect_left(self.records, self.end, key=_OFFSET) :]
        # A broker knows of producers what its log says: who has sent what is gone is out of sequence.
        self.out_of_sequence.update(producer for producer, known in self.sessions.items() if known[1] >= self.end)
        self.sessions = {producer: known for producer, known in self.sessions.items() if known[1] < self.end}
        self._horizons_ms = {offset: horizon for offset, horizon in self._horizons_ms.items() if offset < self.end}

    def compact(self, now_ms: int, *, lag_ms: int, spared: int, tombstone_ms: int) -> None:
        cleanable = [
            record
            for record in self.records[: max(0, len(self.records) - spared)]
            if record.timestamp <= now_ms - lag_ms
        ]
        newest = {record.key: record.offset for record in cleanable}
        kept = [record for record in cleanable if record.key is not None and newest[record.key] == record.offset]
        for record in kept:
            if record.value is None:
                self._horizons_ms.setdefault(record.offset, now_ms + tombstone_ms)
        self.records = [
            record for record in kept if record.value is not None or now_ms < self._horizons_ms[record.offset]
        ] + self.records[len(cleanable) :]


@dataclass(frozen=True)
class _Topic:
    spec: Topic
    topic_id: str
    logs: tuple[_Log, ...]
    batch_size_max_bytes: int

    @classmethod
    def made(cls, spec: Topic, wire: str, random: Random) -> "_Topic":
        return cls(
            spec,
            base64.urlsafe_b64encode(random.randbytes(16)).rstrip(b"=").decode(),
            tuple(_Log(wire, partition) for partition in range(spec.partitions)),
            int(spec.config["max.message.bytes"]),
        )

    def setting_ms(self, name: str) -> int:
        return int(self.spec.config.get(name, "0"))


class _Batch:
    """What is sent at once."""

    __slots__ = ("answer", "is_orphan", "number", "partition", "producer", "records")

    def __init__(
        self,
        producer: "_Producer",
        number: int,
        partition: TopicPartition,
        records: Sequence[Outgoing],
        answer: "asyncio.Future[int]",
    ) -> None:
        self.producer = producer
        self.number = number
        self.partition = partition
        self.records = records
        self.answer = answer
        #: Whether it goes on without its producer.
        self.is_orphan = False


class _Producer:
    def __init__(self, broker: SimulatedBroker, process: Process, client_id: str, batch_size_max_bytes: int) -> None:
        self.process = process
        self._client_id = client_id
        self.number = broker._new_number()
        self._broker = broker
        self._batch_size_max_bytes = batch_size_max_bytes
        self._batches = 0
        self._given_up = False
        #: By partition, what was not answered yet; only the first is under way.
        self._queues: dict[TopicPartition, deque[_Batch]] = {}

    @property
    def is_gone(self) -> bool:
        return self._given_up or not self.process.alive

    async def start(self) -> None:
        await self._broker._reach(self.process, self._client_id, REQUEST_TIMEOUT_SECONDS)

    async def partition_count(self, topic: str) -> int:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REQUEST_TIMEOUT_SECONDS
        while True:
            await asyncio.sleep(self._broker._latency())
            found = None if self._broker._is_away(self.process) else self._broker._topics.get(topic)
            if found is not None:
                return len(found.logs)
            if loop.time() >= deadline:
                raise UnknownTopicOrPartitionError(topic)
            await asyncio.sleep(self._broker._retry_seconds())

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> tuple[int, int]:
        if self._given_up:
            raise ProducerClosed
        fitting = records[: self._count_fitting(records)]
        self._batches += 1
        batch = _Batch(
            self,
            self._batches,
            TopicPartition(topic, partition),
            fitting,
            asyncio.get_running_loop().create_future(),
        )
        queue = self._queues.setdefault(batch.partition, deque())
        queue.append(batch)
        if len(queue) == 1:
            self._broker._send(batch)
        # Who stops waiting does not stop the batch.
        return await batch.answer, len(fitting)

    async def give_up(self) -> None:
        self._given_up = True
        self._queues.clear()
        await asyncio.sleep(0)

    def send_again(self, batch: _Batch) -> None:
        if self._is_under_way(batch):
            self._broker._send(batch)

    def take_answer(self, batch: _Batch, result: int | KafkaError) -> None:
        if not self._is_under_way(batch):
            return
        queue = self._queues[batch.partition]
        queue.popleft()
        if queue:
            self._broker._send(queue[0])
        if batch.answer.done():
            return
        if isinstance(result, int):
            batch.answer.set_result(result)
        else:
            batch.answer.set_exception(result)

    def _is_under_way(self, batch: _Batch) -> bool:
        """Whether no other copy of it was answered before."""
        queue = self._queues.get(batch.partition)
        return queue is not None and len(queue) > 0 and queue[0] is batch

    def _count_fitting(self, records: Sequence[Outgoing]) -> int:
        """As many as a batch holds; the first one always."""
        size_bytes = _BATCH_OVERHEAD_BYTES
        for count, record in enumerate(records):
            size_bytes += _size_bytes(record)
            if count and size_bytes > self._batch_size_max_bytes:
                return count
        return len(records)


class _Assigned:
    """Where a reader is in one partition. A seek begins with a new one, so that what was under way is lost on it."""

    __slots__ = ("error", "fetched", "fetches", "next_offset", "offset", "taken")

    def __init__(self, offset: int) -> None:
        #: The reader's position.
        self.offset = offset
        self.fetches = False
        #: What has come and how much of it was taken, and where the partition goes on behind it.
        self.fetched: list[SimulatedRecord] | None = None
        self.taken = 0
        self.next_offset = offset
        self.error: KafkaError | None = None


class _Reader:
    def __init__(
        self,
        broker: SimulatedBroker,
        process: Process,
        client_id: str,
        wait_max_milliseconds: int,
        partition_fetch_max_bytes: int,
    ) -> None:
        self.process = process
        self._broker = broker
        self._client_id = client_id
        self._wait_max_seconds = wait_max_milliseconds / 1000
        self._fetch_max_bytes = partition_fetch_max_bytes
        self._assigned: dict[TopicPartition, _Assigned] = {}
        #: Partitions of which something has come, in the order it came.
        self._arrived: dict[TopicPartition, _Assigned] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        await self._broker._reach(self.process, self._client_id, _READER_TIMEOUT_SECONDS)
        self._broker._readers[self] = None

    async def partition_counts(self, topics: Sequence[str]) -> Mapping[str, int]:
        await asyncio.sleep(self._broker._latency())
        if self._broker._is_away(self.process):
            # aiokafka answers from what it knew before, and that may be nothing.
            if self._broker._happens(0.5):
                return dict.fromkeys(topics, 0)
            await self._broker._reach(self.process, self._client_id, _READER_TIMEOUT_SECONDS)
        found = self._broker._topics
        return {topic: len(found[topic].logs) if topic in found else 0 for topic in topics}

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        begins = {partition: log.begin for partition, log in (await self._logs(partitions)).items()}
        ends = {partition: log.end for partition, log in (await self._logs(partitions)).items()}
        return {partition: (begins[partition], ends[partition]) for partition in partitions}

    async def _logs(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, _Log]:
        """After a question to the cluster, asked again until it answers. Raises KafkaTimeoutError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READER_TIMEOUT_SECONDS
        while True:
            await asyncio.sleep(self._broker._latency())
            if not self._broker._is_away(self.process):
                found = {partition: self._broker._log(*partition) for partition in partitions}
                logs = {partition: log for partition, log in found.items() if log is not None}
                if len(logs) == len(found):
                    return logs
            if loop.time() >= deadline:
                raise KafkaTimeoutError
            await asyncio.sleep(self._broker._retry_seconds())

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._arrived.clear()
        self._assigned = {partition: _Assigned(offset) for partition, offset in positions.items()}
        self.fetch_all()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self._assigned:
            raise IllegalStateError(f"{partition} is not assigned")
        self._arrived.pop(partition, None)
        self._assigned[partition] = _Assigned(offset)
        self.fetch(partition)

    async def read(self, *, timeout_milliseconds: int, records_max: int) -> Mapping[TopicPartition, Sequence[Record]]:
        if self._stopped:
            raise ConsumerStoppedError
        deadline = asyncio.get_running_loop().time() + timeout_milliseconds / 1000
        while True:
            found = self._take(records_max)
            if found or not await self._may_have_come(deadline):
                return found

    async def positions(self) -> Mapping[TopicPartition, int]:
        return {partition: assigned.offset for partition, assigned in self._assigned.items()}

    async def stop(self) -> None:
        self._stopped = True
        self._broker._readers.pop(self, None)
        self._wake()

    def fetch_all(self) -> None:
        for partition in self._assigned:
            self.fetch(partition)

    def fetch(self, partition: TopicPartition) -> None:
        """Have what there is brought, unless something is on its way or waits to be taken."""
        assigned = self._assigned.get(partition)
        if assigned is None or assigned.fetches or assigned.fetched is not None or assigned.error is not None:
            return
        log = self._broker._log(*partition)
        if log is None or assigned.offset == log.end:
            return
        assigned.fetches = True
        seconds = self._broker._latency()
        if assigned.offset > log.end:
            # The fetch that waits at the end as it was is over first.
            seconds += self._broker._random.uniform(0.0, self._wait_max_seconds)
        self._broker._later(self._broker.process, seconds, self._arrive, partition, assigned)

    def go_back(self, count: int) -> None:
        for partition, assigned in self._assigned.items():
            log = self._broker._log(*partition)
            if log is not None:
                self.seek(partition, max(min(log.begin, assigned.offset), assigned.offset - count))

    def _arrive(self, partition: TopicPartition, assigned: _Assigned) -> None:
        """What the cluster has at this moment is in the socket, also if the process is frozen."""
        assigned.fetches = False
        if self._stopped or self._assigned.get(partition) is not assigned or self._broker._is_away(self.process):
            return
        log = self._broker._log(*partition)
        if log is None:
            return
        if not log.begin <= assigned.offset <= log.end:
            assigned.error = OffsetOutOfRangeError({partition: assigned.offset})
        else:
            records, next_offset = log.read(assigned.offset, self._fetch_max_bytes)
            if len(records) > 1 and self._broker._happens(self._broker.network.partial_fetches):
                del records[self._broker._random.randrange(1, len(records)) :]
                next_offset = records[-1].offset + 1
            if next_offset == assigned.offset:
                return
            assigned.fetched, assigned.taken, assigned.next_offset = records, 0, next_offset
        self._arrived[partition] = assigned
        self._wake()

    async def _may_have_come(self, deadline: float) -> bool:
        """Wait for something; False where there is nothing left to wait for."""
        loop = asyncio.get_running_loop()
        if loop.time() >= deadline:
            return False
        waiter = self._waiter = loop.create_future()
        timer = loop.call_at(deadline, self._wake)
        try:
            await waiter
        finally:
            timer.cancel()
        return not self._stopped

    def _take(self, records_max: int) -> dict[TopicPartition, list[SimulatedRecord]]:
        """As aiokafka's fetcher: partitions in the order they came, and an error only where it is first."""
        found: dict[TopicPartition, list[SimulatedRecord]] = {}
        for partition, assigned in list(self._arrived.items()):
            if assigned.error is not None:
                if found:
                    break
                error, assigned.error = assigned.error, None
                del self._arrived[partition]
                self.fetch(partition)
                raise error
            records = (assigned.fetched or [])[assigned.taken : assigned.taken + records_max]
            if len(records) == records_max:
                assigned.taken += records_max
                assigned.offset = records[-1].offset + 1
            else:
                assigned.offset = assigned.next_offset
                assigned.fetched = None
                del self._arrived[partition]
                self.fetch(partition)
            if records:
                found[partition] = records
                records_max -= len(records)
                if not records_max:
                    break
        return found

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Watch:
    def __init__(self, broker: SimulatedBroker, process: Process, client_id: str) -> None:
        self._broker = broker
        self._process = process
        self._client_id = client_id

    async def look(self, partitions: Mapping[str, int]) -> Seen:
        """The ids, and a moment later the ends."""
        topic_ids = {topic: found.topic_id for topic, found in (await self._topics(partitions)).items()}
        topics = await self._topics(partitions)
        return Seen(
            topic_ids=topic_ids,
            ends={
                TopicPartition(topic, number): topics[topic].logs[number].end
                for topic, count in partitions.items()
                for number in range(count)
            },
        )

    async def _topics(self, names: Iterable[str]) -> Mapping[str, _Topic]:
        try:
            await self._broker._reach(self._process, self._client_id, _WATCH_TIMEOUT_SECONDS)
        except KafkaConnectionError as error:
            raise WatchUnavailableError(repr(error)) from error
        found = self._broker._topics
        absent = [name for name in names if name not in found]
        if absent:
            raise WatchUnavailableError(f"no such topics: {absent}")
        return {name: found[name] for name in names}


def _size_bytes(record: Outgoing) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return _RECORD_OVERHEAD_BYTES + len(record.key) + len(record.value or b"") + headers
