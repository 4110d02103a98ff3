"""The log as the relay writes it: an idempotent producer, and batches that are acknowledged one after the other."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)

from contracts.topics import BATCH_SIZE_MAX_BYTES, Topic, wire_name
from infra.kafka.clients import Kafka, Outgoing
from infra.kafka.partitioner import partitions_of
from infra.kafka.producer import REQUEST_TIMEOUT_SECONDS
from infra.outbox.store import Refusal, Row

#: Below what a topic takes, so that only a record that is too large by itself is refused for its size.
_BATCH_BYTES: Final = BATCH_SIZE_MAX_BYTES // 2

#: What the broker says of records themselves; sent again they would be refused again.
_REFUSALS: Final = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTimestampError,
    UnsupportedForMessageFormatError,
)


class LogUnavailableError(Exception):
    """Kafka is away, or its topics are not those of the registry."""


@dataclass
class Sent:
    """What became of the rows of one partition. Rows in neither list are to be sent again."""

    topic: str
    partition: int
    #: First and last offset of each batch.
    ranges: list[tuple[int, int]] = field(default_factory=list)
    acknowledged: list[Row] = field(default_factory=list)
    refusal: Refusal | None = None
    error: BaseException | None = None
    #: Whether the next try differs from this one: something was acknowledged, or batches get smaller.
    came_further: bool = False


class Log:
    """Sends rows to their partitions. After any error it is to be closed, and another opened."""

    def __init__(self, kafka: Kafka, topics: Iterable[Topic], batch_rows: "BatchRows") -> None:
        self._prefix = kafka.topic_prefix
        self._topics = {topic.name: topic for topic in topics}
        self._batch_rows = batch_rows
        self._producer = kafka.producer(client_id="outbox-relay", batch_size_max_bytes=_BATCH_BYTES)

    async def open(self) -> None:
        """Connect; raises LogUnavailableError also where a topic has other partitions than the registry says."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                await self._producer.start()
                for name, topic in self._topics.items():
                    found = await self._producer.partition_count(wire_name(self._prefix, name))
                    if found != topic.partitions:
                        raise LogUnavailableError(f"{name} has {found} partitions, the registry {topic.partitions}")
        except (KafkaError, TimeoutError, OSError) as error:
            raise LogUnavailableError(repr(error)) from error

    async def send(self, rows: Sequence[Row]) -> list[Sent]:
        """Send rows in order per partition, all partitions at once, and wait until each was answered."""
        by_topic: Mapping[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_topic[row.topic].append(row)
        by_partition: Mapping[tuple[str, int], list[Row]] = defaultdict(list)
        for topic, of_topic in by_topic.items():
            keys = [row.key.encode() for row in of_topic]
            for row, partition in zip(of_topic, partitions_of(keys, self._topics[topic].partitions), strict=True):
                by_partition[topic, partition].append(row)
        return await asyncio.gather(
            *(
                self._send_in_order(Sent(topic, partition), pending)
                for (topic, partition), pending in by_partition.items()
            )
        )

    async def send_nulls(self, topic: str, partition: int, keys: Sequence[bytes]) -> Sent:
        """Send records without a value into one partition, and wait until they were answered."""
        sent = Sent(topic, partition)
        outgoing = [Outgoing(key, None) for key in keys]
        try:
            while outgoing:
                count = await self._send_batch(sent, outgoing)
                outgoing = outgoing[count:]
        except (KafkaError, TimeoutError, OSError) as error:
            sent.error = error
        return sent

    async def close(self) -> None:
        """Give the producer up; what was not answered may or may not come to be in the log.

        Who is cancelled meanwhile, be it again and again, waits for its end: left half open it would send for ever.
        """
        giving_up = asyncio.ensure_future(self._producer.give_up())
        cancelled: asyncio.CancelledError | None = None
        while not giving_up.done():
            try:
                await asyncio.shield(giving_up)
            except asyncio.CancelledError as error:
                cancelled = error
        giving_up.result()
        if cancelled is not None:
            raise cancelled

    async def _send_in_order(self, sent: Sent, rows: Sequence[Row]) -> Sent:
        """One batch after the other: none may overtake one that failed."""
        start = 0
        try:
            while start < len(rows):
                batch = rows[start : start + self._batch_rows.of(sent)]
                count = await self._send_batch(
                    sent, [Outgoing(row.key.encode(), row.value, row.headers) for row in batch]
                )
                sent.acknowledged.extend(batch[:count])
                start += count
            self._batch_rows.succeeded(sent)
        except _REFUSALS as error:
            if self._batch_rows.of(sent) == 1:
                sent.refusal = Refusal(rows[start], f"{type(error).__name__}: {error}")
            self._batch_rows.refused(sent, len(rows) - start)
            sent.error, sent.came_further = error, True
        except (KafkaError, TimeoutError, OSError) as error:
            sent.error = error
        return sent

    async def _send_batch(self, sent: Sent, outgoing: Sequence[Outgoing]) -> int:
        """Send as many of the records as fit into a batch; how many that were."""
        async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
            first, count = await self._producer.send_batch(
                wire_name(self._prefix, sent.topic), sent.partition, outgoing
            )
        if first < 0:
            # A duplicate the broker remembers no offset of; where the records are is not known.
            raise KafkaError(f"{sent.topic}[{sent.partition}]: acknowledged without an offset")
        sent.ranges.append((first, first + count - 1))
        sent.came_further = True
        return count


class BatchRows:
    """How many rows a batch may have: halved where one was refused, until the row that is to blame stands alone."""

    _MAX: Final = 10_000

    def __init__(self) -> None:
        self._limits: dict[tuple[str, int], int] = {}

    def of(self, sent: Sent) -> int:
        return self._limits.get((sent.topic, sent.partition), self._MAX)

    def refused(self, sent: Sent, rows: int) -> None:
        self._limits[sent.topic, sent.partition] = max(1, min(self.of(sent), rows) // 2)

    def forget(self) -> None:
        self._limits.clear()

    def succeeded(self, sent: Sent) -> None:
        self._limits.pop((sent.topic, sent.partition), None)
