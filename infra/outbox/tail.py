"""The owner reads its own state topics: a record it did not send itself is one nobody may leave last in the log.

Compaction keeps the highest offset of a key, not its highest version. A relay that was frozen and woke up, or a batch
that was given up and still arrived, can put an older state behind a newer one. The leader knows the offsets of all it
sent; whatever else it finds in the log, it has the key's current state published again. That needs no memory of keys,
and has no time limit: records are checked from where the last leader had checked up to.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.errors import DomainError, Kind
from contracts.topics import Topic, wire_name
from infra.kafka.clients import Kafka, RecordReader
from infra.outbox.log import LogUnavailableError, Sent
from infra.outbox.store import Progress
from infra.outbox.writer import Revision
from infra.postgres.database import UnitsOfWork

#: Publishes the current state of a key again, under the version it has, with the aggregate's row locked; answers what
#: it published, or none if the database knows no such key.
Republish = Callable[[AsyncSession, str], Awaitable[Revision | None]]
#: Given topic and key: from now on a row of the key that is pending counts as not sent, whatever was acknowledged.
Forget = Callable[[str, str], Awaitable[None]]

_FETCH_RECORDS_MAX: Final = 2000
_FETCH_WAIT_MILLISECONDS: Final = 500
_PARTITION_FETCH_MAX_BYTES: Final = 1024 * 1024
_RETRY_INTERVAL_SECONDS: Final = 0.5

Partition = tuple[str, int]

_log: Final = structlog.get_logger("kisum.outbox")


class Tail:
    """What one leader knows of the order of its topics. It outlives the clients that it reads with."""

    def __init__(
        self,
        topics: Sequence[Topic],
        republish: Mapping[str, Republish],
        database: UnitsOfWork,
        progress: Iterable[Progress],
        forget: Forget,
    ) -> None:
        self._forget = forget
        self._topics = {topic.name: topic for topic in topics}
        self._republish = republish
        self._database = database
        self._progress = {(known.topic, known.partition): known for known in progress if known.topic in self._topics}
        self._fetched = {partition: known.checked_offset for partition, known in self._progress.items()}
        self._own: dict[Partition, deque[tuple[int, int]]] = {partition: deque() for partition in self._progress}
        self._unjudged: deque[tuple[Partition, Any]] = deque()
        self._suspects: asyncio.Queue[tuple[Partition, int, list[Any]]] = asyncio.Queue()

    def note_sent(self, sent: Sent) -> None:
        """These offsets are this leader's own."""
        partition = sent.topic, sent.partition
        if partition not in self._own:
            return
        self._own[partition].extend(sent.ranges)
        known = self._progress[partition]
        for first, last in sent.ranges:
            # What follows checked records without a gap needs no second look and is stored as checked with the deletes,
            # so that a next leader finds only what this one was sending when it ended.
            if first == known.checked_offset:
                known.checked_offset = last + 1

    def judge(self) -> None:
        """Tell own records from others. Only while nothing is being sent: then every offset of one's own is known."""
        pending, self._unjudged = self._unjudged, deque()
        found: dict[Partition, list[Any]] = {}
        ends: dict[Partition, int] = {}
        for partition, record in pending:
            own = self._own[partition]
            while own and own[0][1] < record.offset:
                own.popleft()
            if not own or record.offset < own[0][0]:
                found.setdefault(partition, []).append(record)
            ends[partition] = record.offset + 1
        for partition, end in ends.items():
            self._suspects.put_nowait((partition, end, found.get(partition, [])))

    async def read(self, kafka: Kafka, *, is_sending: Callable[[], bool]) -> None:
        """Follow the log until cancelled. Raises LogUnavailableError."""
        if not self._topics:
            return
        reader = kafka.reader(
            client_id="outbox-tail",
            wait_max_milliseconds=_FETCH_WAIT_MILLISECONDS,
            partition_fetch_max_bytes=_PARTITION_FETCH_MAX_BYTES,
        )
        partitions = {
            TopicPartition(wire_name(kafka.topic_prefix, topic), number): (topic, number)
            for topic, number in self._progress
        }
        try:
            await reader.start()
            reader.assign({assigned: self._fetched[partition] for assigned, partition in partitions.items()})
            while True:
                try:
                    found = await reader.read(
                        timeout_milliseconds=_FETCH_WAIT_MILLISECONDS, records_max=_FETCH_RECORDS_MAX
                    )
                except OffsetOutOfRangeError as error:
                    await self._skip_to_end(reader, partitions, error)
                    continue
                for assigned, records in found.items():
                    partition = partitions[assigned]
                    self._unjudged.extend((partition, record) for record in records)
                    self._fetched[partition] = records[-1].offset + 1
                if found and not is_sending():
                    self.judge()
        except (KafkaError, OSError) as error:
            raise LogUnavailableError(repr(error)) from error
        finally:
            await reader.stop()

    async def heal(self) -> None:
        """Have the current state of each suspect key published again, until cancelled."""
        while True:
            partition, end, records = await self._suspects.get()
            newest = {record.key: record for record in records}
            for record in newest.values():
                await self._heal_key(self._topics[partition[0]], record)
            known = self._progress[partition]
            known.checked_offset = max(known.checked_offset, end)

    async def _skip_to_end(
        self,
        reader: RecordReader,
        partitions: Mapping[TopicPartition, Partition],
        error: OffsetOutOfRangeError,
    ) -> None:
        """A shorter log: what it lost is for the watch over its length to say, and nothing here can be checked."""
        lost = list(error.args[0]) if error.args and isinstance(error.args[0], dict) else list(partitions)
        for assigned, (_, end) in (await reader.bounds(lost)).items():
            reader.seek(assigned, end)
            self._fetched[partitions[assigned]] = end

    async def _heal_key(self, topic: Topic, record: Any) -> None:
        found = {"topic": topic.name, "partition": record.partition, "offset": record.offset}
        try:
            key = record.key.decode()
        except (AttributeError, UnicodeDecodeError):
            _log.error("a record without a readable key is in an owned topic", **found)
            return
        current: Revision | None = None
        while True:
            # Before it is published again: a row that was sent and waits for its deletion stays as it is then, and
            # would be deleted without having come after the record that was found.
            await self._forget(topic.name, key)
            try:
                async with self._database.unit_of_work() as work:
                    current = await self._republish[topic.name](work, key)
                break
            except DomainError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    _log.exception("the state of a key could not be published again", key=key, **found)
                    return
                await asyncio.sleep(_RETRY_INTERVAL_SECONDS)
            except Exception:  # noqa: BLE001 - logged with its key
                # A defect of the service, told by name; the others go on. The next leader checks no further back.
                _log.exception("the state of a key could not be published again", key=key, **found)
                return
        seen = _revision_of(record.value)
        if current is None:
            _log.error("the log holds a key the database does not know", key=key, **found)
        elif seen != (current.epoch, current.version):
            _log.error(
                "an older state was last in the log; sent again", key=key, seen=seen, current=str(current), **found
            )
        else:
            _log.info("a state was found that another relay sent; sent again", key=key, revision=str(current), **found)


def _revision_of(value: bytes | None) -> tuple[int, int] | None:
    """What the record says of itself; none where it says nothing readable."""
    try:
        document = json.loads(value or b"null")
        return int(document["epoch"]), int(document["version"])
    except (ValueError, TypeError, KeyError):
        return None
