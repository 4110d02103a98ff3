"""What the access path asks of Kafka, as ports, and their real halves.

The outbox's relay and the access feed know these ports only. `KafkaClients` gives clients of a real cluster; the
simulation gives clients of a simulated one, and both pass tests/integration/test_kafka_clients.py.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka import TopicPartition as AskedPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # not marked as exported

from infra.kafka.connection import KafkaConnection
from infra.kafka.producer import give_up, new_producer
from infra.kafka.starting import start_whole, stop_whole
from infra.tasks import end_tasks

_LOOK_TIMEOUT_SECONDS: Final = 3.0
_STOP_SECONDS: Final = 3.0
#: How often a consumer looks round for what it might fetch although nothing has happened. aiokafka's five times a
#: second were a sixth of what an idle service used. What does happen wakes it at once: an answer, a record that is
#: taken, another assignment, other metadata.
LOOK_ROUND_MILLISECONDS: Final = 5000
_KAFKA_ALPHABET: Final = str.maketrans("+/", "-_")

_library_log: Final = logging.getLogger(__name__)
_log: Final = structlog.get_logger("kisum.kafka")


class Outgoing(NamedTuple):
    """A record to send. A value of None is a tombstone."""

    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Record(Protocol):
    """A record of the log, as aiokafka has it."""

    offset: int
    partition: int
    topic: str
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True)
class Seen:
    """What the broker says of topics: their ids, which a topic made again has not kept, and their end offsets."""

    topic_ids: Mapping[str, str]
    ends: Mapping[TopicPartition, int]


class RecordProducer(Protocol):
    """Idempotent, `acks=all`. Errors are aiokafka's KafkaError or OSError; after one it is to be given up."""

    async def start(self) -> None: ...

    async def partition_count(self, topic: str) -> int: ...

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> tuple[int, int]:
        """Send as many of the records as a batch holds; the first offset and how many that were, acknowledged."""

    async def give_up(self) -> None:
        """End it. What was not acknowledged may or may not come to be in the log."""


class RecordReader(Protocol):
    """Reads assigned partitions, in no group. Errors are aiokafka's KafkaError or OSError."""

    async def start(self) -> None: ...

    async def partition_counts(self, topics: Sequence[str]) -> Mapping[str, int]:
        """How many partitions each topic has; 0 for one that is missing."""

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """The first offset each partition still has, and its next."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on."""

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def read(self, *, timeout_milliseconds: int, records_max: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """What has come, by partition. Raises OffsetOutOfRangeError with the partitions where the log ends before."""

    async def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset of each assigned partition; behind a compacted gap it may move without a record."""

    async def stop(self) -> None: ...


async def stop_reader(reader: RecordReader) -> None:
    """End a reader; `stop_whole` says what is done where that is interrupted, fails or takes more than 3 s."""
    await stop_whole(reader.stop(), timeout_seconds=_STOP_SECONDS)


class LogWatch(Protocol):
    """Asks about topics what readers and producers cannot see."""

    async def look(self, partitions: Mapping[str, int]) -> Seen:
        """Ids and ends of topics with so many partitions. Raises a KafkaError."""


class Kafka(Protocol):
    """A principal's clients. `topic_prefix` stands before every topic of this installation."""

    @property
    def topic_prefix(self) -> str: ...

    def producer(self, *, client_id: str, batch_size_max_bytes: int) -> RecordProducer: ...

    def reader(self, *, client_id: str, wait_max_milliseconds: int, partition_fetch_max_bytes: int) -> RecordReader: ...

    def watch(self, *, client_id: str) -> LogWatch: ...


class WatchUnavailableError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The broker did not answer what was asked about topics."""

    retriable = True


@dataclass(frozen=True)
class KafkaClients:
    """Clients of a real cluster."""

    connection: KafkaConnection

    @property
    def topic_prefix(self) -> str:
        return self.connection.topic_prefix

    def producer(self, *, client_id: str, batch_size_max_bytes: int) -> RecordProducer:
        return _Producer(new_producer(self.connection, client_id=client_id, max_batch_size=batch_size_max_bytes))

    def reader(self, *, client_id: str, wait_max_milliseconds: int, partition_fetch_max_bytes: int) -> RecordReader:
        return _Reader(
            AIOKafkaConsumer(
                **self.connection.aiokafka(),
                client_id=client_id,
                group_id=None,
                enable_auto_commit=False,
                # An offset that is not there is an event to react to, never one to step over.
                auto_offset_reset="none",
                fetch_max_wait_ms=wait_max_milliseconds,
                consumer_timeout_ms=LOOK_ROUND_MILLISECONDS,
                max_partition_fetch_bytes=partition_fetch_max_bytes,
            )
        )

    def watch(self, *, client_id: str) -> LogWatch:
        return _Watch(AdminClient({**self.connection.confluent(), "client.id": client_id}, logger=_library_log))


class _Producer:
    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def start(self) -> None:
        await start_whole(self._producer.start())

    async def partition_count(self, topic: str) -> int:
        return len(await self._producer.partitions_for(topic))

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> tuple[int, int]:
        batch = self._producer.create_batch()
        count = 0
        for record in records:
            if batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers)) is None:
                break
            count += 1
        batch.close()
        answered = await self._producer.send_batch(batch, topic, partition=partition)
        return (await answered).offset, count

    async def give_up(self) -> None:
        await give_up(self._producer)


class _Reader:
    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._assigned: tuple[TopicPartition, ...] = ()

    async def start(self) -> None:
        await start_whole(self._consumer.start())

    async def partition_counts(self, topics: Sequence[str]) -> Mapping[str, int]:
        # The public calls ask for one topic at a time, with a pause after each.
        await self._consumer._client.set_topics(topics)  # noqa: SLF001
        return {topic: len(self._consumer.partitions_for_topic(topic) or ()) for topic in topics}

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        # Together: each waits behind the fetch that the broker keeps, and behind the next one where it is sent later.
        begins, ends = await asyncio.gather(
            self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        )
        return {partition: (begins[partition], ends[partition]) for partition in partitions}

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        # Nothing is awaited between: an assigned partition without a position would be an error.
        self._assigned = tuple(positions)
        self._consumer.assign(list(positions))
        for partition, offset in positions.items():
            self._consumer.seek(partition, offset)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(partition, offset)

    async def read(self, *, timeout_milliseconds: int, records_max: int) -> Mapping[TopicPartition, Sequence[Record]]:
        found: Mapping[TopicPartition, Sequence[Record]] = await self._consumer.getmany(
            timeout_ms=timeout_milliseconds, max_records=records_max
        )
        return found

    async def positions(self) -> Mapping[TopicPartition, int]:
        return {partition: await self._consumer.position(partition) for partition in self._assigned}

    async def stop(self) -> None:
        # aiokafka waits for the fetches it has cancelled, and lets the cancellation of one that pauses before it is
        # tried again through as if it were its caller's, who then ends for no reason, its connections left open.
        fetcher = self._consumer._fetcher  # noqa: SLF001
        if fetcher is not None:
            await end_tasks(fetcher._fetch_task, *fetcher._pending_tasks)  # noqa: SLF001
            fetcher._pending_tasks.clear()  # noqa: SLF001
        await self._consumer.stop()


class _Watch:
    """aiokafka knows no topic ids, so this is confluent-kafka's client."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    async def look(self, partitions: Mapping[str, int]) -> Seen:
        try:
            return await asyncio.to_thread(self._look, partitions)
        except KafkaException as error:
            raise WatchUnavailableError(repr(error)) from error

    def _look(self, partitions: Mapping[str, int]) -> Seen:
        described: Mapping[str, Any] = self._admin.describe_topics(
            TopicCollection(list(partitions)), request_timeout=_LOOK_TIMEOUT_SECONDS
        )
        ends = self._admin.list_offsets(
            {
                AskedPartition(topic, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
                for topic, number in _numbered(partitions)
            },
            request_timeout=_LOOK_TIMEOUT_SECONDS,
        )
        return Seen(
            topic_ids={
                # librdkafka writes them in the other alphabet of base64 than Kafka.
                topic: str(answer.result().topic_id).translate(_KAFKA_ALPHABET)
                for topic, answer in described.items()
            },
            ends={
                TopicPartition(asked.topic, asked.partition): answer.result().offset for asked, answer in ends.items()
            },
        )


def _numbered(partitions: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    for topic, count in partitions.items():
        for number in range(count):
            yield topic, number
