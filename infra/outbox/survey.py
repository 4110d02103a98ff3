"""Reading an owner's logs as they are: its last heartbeat, and all that its topics hold."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from contracts.envelope import Envelope, UndecodableEventError, decode
from contracts.events.heartbeat import Heartbeat
from contracts.payload import EPOCH_MAX, VERSION_MAX
from contracts.topics import Topic, wire_name
from infra.kafka.clients import Kafka, stop_reader
from infra.outbox.log import LogUnavailableError

#: What an owner publishes above. Half of what readers believe: the other half is room to count on in.
FOLLOWED_EPOCH_MAX: Final = EPOCH_MAX // 2
FOLLOWED_VERSION_MAX: Final = VERSION_MAX // 2

_FETCH_WAIT_MILLISECONDS: Final = 200
_FETCH_RECORDS_MAX: Final = 2000
_PARTITION_FETCH_MAX_BYTES: Final = 1024 * 1024
#: aiokafka says nothing where the broker is gone: a read that comes no further for so long is given up.
_STALL_SECONDS: Final = 15.0
#: Among so many of the last records is the newest heartbeat, whoever else wrote there.
_LAST_HEARTBEATS: Final = 200

#: A topic by the registry's name, and a partition.
Partition = tuple[str, int]
Visit = Callable[[Partition, Any], Awaitable[None]]


@dataclass(frozen=True)
class LastHeartbeat:
    """What the newest heartbeat said; zeros and nothing where there is none."""

    epoch: int = 0
    publish_counter: int = 0
    #: Where each partition ended, with the id that its topic had.
    ends: Mapping[Partition, tuple[str, int]] = field(default_factory=dict)

    def end_of(self, partition: Partition, topic_id: str) -> int:
        """Up to where the log must reach if nothing was lost of it; 0 where nothing is known of this log."""
        told_id, end = self.ends.get(partition, (topic_id, 0))
        return end if told_id == topic_id else 0


@dataclass
class Survey:
    """What the logs say of the epochs there have been.

    :ivar epoch: the newest.
    :ivar beyond: a record of an epoch nothing can be published above, in words.
    :ivar ends: up to where each partition was read.
    """

    epoch: int = 0
    beyond: str | None = None
    ends: dict[Partition, int] = field(default_factory=dict)


async def last_heartbeat(kafka: Kafka, topic: Topic) -> LastHeartbeat:
    """The newest heartbeat there is. Raises LogUnavailableError."""
    newest = LastHeartbeat()

    async def visit(_: Partition, record: Any) -> None:
        nonlocal newest
        try:
            event: Envelope[Any] = decode(record.value or b"", topic.payloads)
        except UndecodableEventError:
            return
        if not isinstance(event.data, Heartbeat) or event.epoch > FOLLOWED_EPOCH_MAX:
            return
        if (event.epoch, event.data.publish_counter) >= (newest.epoch, newest.publish_counter):
            newest = LastHeartbeat(
                event.epoch,
                event.data.publish_counter,
                {
                    (position.topic, position.partition): (position.topic_id, position.next_offset)
                    for position in event.data.positions
                },
            )

    await read_through(kafka, (topic,), visit, last_records=_LAST_HEARTBEATS)
    return newest


async def survey(kafka: Kafka, topics: Iterable[Topic]) -> Survey:
    """Read all that these topics hold. Raises LogUnavailableError."""
    found = Survey()
    payloads = {topic.name: topic.payloads for topic in topics}

    async def visit(partition: Partition, record: Any) -> None:
        epoch, version = revision_of(record.value)
        if epoch <= FOLLOWED_EPOCH_MAX:
            found.epoch = max(found.epoch, epoch)
        elif is_believable(epoch, version) and _is_readable(record.value, payloads[partition[0]]):
            found.beyond = f"{partition[0]}/{partition[1]} holds, at {record.offset}, a state of epoch {epoch}"

    found.ends = await read_through(kafka, topics, visit)
    return found


async def read_through(
    kafka: Kafka,
    topics: Iterable[Topic],
    visit: Visit,
    *,
    until: Mapping[Partition, int] | None = None,
    last_records: int | None = None,
) -> dict[Partition, int]:
    """Call `visit` with each record that these topics hold; up to where each partition was read.

    :param until: where to stop in each partition; where it ends now unless given.
    :param last_records: how many offsets before the end to begin; at the beginning unless given.

    Raises LogUnavailableError, also where the log changes under the reader.
    """
    reader = kafka.reader(
        client_id="outbox-survey",
        wait_max_milliseconds=_FETCH_WAIT_MILLISECONDS,
        partition_fetch_max_bytes=_PARTITION_FETCH_MAX_BYTES,
    )
    partitions = {
        TopicPartition(wire_name(kafka.topic_prefix, topic.name), number): (topic.name, number)
        for topic in topics
        for number in range(topic.partitions)
    }
    try:
        await reader.start()
        bounds = await reader.bounds(list(partitions))
        ends = {wire: end if until is None else min(end, until[partitions[wire]]) for wire, (_, end) in bounds.items()}
        begins = {
            wire: begin if last_records is None else max(begin, ends[wire] - last_records)
            for wire, (begin, _) in bounds.items()
        }
        unread = {wire for wire, begin in begins.items() if begin < ends[wire]}
        if unread:
            reader.assign({wire: begins[wire] for wire in unread})
        loop = asyncio.get_running_loop()
        moved, moved_at = begins, loop.time()
        while unread:
            found = await reader.read(timeout_milliseconds=_FETCH_WAIT_MILLISECONDS, records_max=_FETCH_RECORDS_MAX)
            for wire, records in found.items():
                for record in records:
                    if record.offset < ends[wire]:
                        await visit(partitions[wire], record)
            positions = dict(await reader.positions())
            if positions != moved:
                moved, moved_at = positions, loop.time()
            elif loop.time() > moved_at + _STALL_SECONDS:
                raise LogUnavailableError("nothing is read any more")
            unread = {wire for wire in unread if positions[wire] < ends[wire]}
        return {partitions[wire]: end for wire, end in ends.items()}
    except OffsetOutOfRangeError as error:
        raise LogUnavailableError(f"the log changed while it was read: {error!r}") from error
    except (KafkaError, OSError) as error:
        raise LogUnavailableError(repr(error)) from error
    finally:
        await stop_reader(reader)


def revision_of(value: bytes | None) -> tuple[int, int]:
    """What a record says of its epoch and version; zeros where it says nothing readable."""
    try:
        document = json.loads(value or b"null")
        epoch, version = int(document["epoch"]), int(document["version"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return 0, 0
    return max(0, epoch), max(0, version)


def is_believable(epoch: int, version: int) -> bool:
    """Whether readers act on a state that says so of itself; one beyond is unreadable to them."""
    return epoch <= EPOCH_MAX and version <= VERSION_MAX


def _is_readable(value: bytes | None, payloads: Iterable[type[Any]]) -> bool:
    try:
        decode(value or b"", payloads)
    except UndecodableEventError:
        return False
    return True
