"""The owner reads its own state topics: what it did not send itself is answered, whatever it is (design §4).

Compaction keeps the highest offset of a key, not its highest version, and whoever reads the log believes the highest
version. A relay that woke up can put an older state behind a newer one, a record nobody can read puts its subject into
quarantine until a newer one comes, and a record with a version this database has not come to would be believed for
ever. The leader knows the offsets of all it sent; for every key of which it finds another record, it publishes what the
database says, under a version above both. That needs no memory of keys and no judgement of what was found, and has no
time limit: records are checked from where the last leader had checked up to.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from contracts.envelope import UndecodableEventError, decode
from contracts.errors import DomainError, Kind
from contracts.topics import Topic, wire_name
from infra.clock import Clock
from infra.kafka.clients import Kafka, Record, RecordReader, stop_reader
from infra.outbox.log import LogUnavailableError, Sent
from infra.outbox.source import StateSource, is_astray, publish_again, readable_key
from infra.outbox.store import Progress
from infra.outbox.survey import FOLLOWED_VERSION_MAX, Partition, is_believable, revision_of
from infra.outbox.writer import Lane
from infra.postgres.database import UnitsOfWork

_FETCH_RECORDS_MAX: Final = 2000
_POLL_MILLISECONDS: Final = 500
#: How long the broker keeps a fetch while there is no record.
_FETCH_WAIT_MILLISECONDS: Final = 2000
_PARTITION_FETCH_MAX_BYTES: Final = 1024 * 1024
#: Keys to be answered at once; with more the log is read no further until some are.
_SUSPECTS_MAX: Final = 10_000
_RETRY_INTERVAL_SECONDS: Final = 0.5
_DEFECT_INTERVAL_SECONDS: Final = 5.0
_ROOM_INTERVAL_SECONDS: Final = 0.05

_log: Final = structlog.get_logger("kisum.outbox")


@dataclass
class Suspect:
    """A key of which records were found that the leader did not send. Many of one key are one.

    A record that is not in its key's partition is two: one to be answered in each.
    """

    topic: str
    partition: int
    raw_key: bytes
    #: None where the bytes are no key of the topic, or of the partition: answered there, with a null record.
    key: str | None
    #: The first and the last of the records.
    first_offset: int
    last_offset: int
    #: The newest epoch and version of those that readers believe.
    believed: tuple[int, int] = (0, 0)
    #: The newest version any of them claims in the leader's epoch.
    version: int = 0
    #: When it may be tried again, in the loop's time.
    not_before: float = 0.0
    is_overtaking: bool = False

    @property
    def found(self) -> dict[str, Any]:
        """As it is logged. The key of a record nobody can read is shown as far as it is short."""
        shown = self.key if self.key is not None else repr(self.raw_key[:100])
        return {"topic": self.topic, "partition": self.partition, "offset": self.last_offset, "key": shown}


@dataclass
class _Checked:
    """One partition as it is checked."""

    known: Progress
    #: The next offset to read, and the next to judge.
    fetched: int
    judged: int
    #: Up to here it has to be checked before a heartbeat says anything of it.
    gate: int
    #: The furthest it was ever judged, also where the log has become shorter since.
    reached: int = 0
    #: The record before the next to judge, and whether a client has still to see that it is what it was.
    last: Record | None = None
    is_unsettled: bool = False
    own: deque[tuple[int, int]] = field(default_factory=deque)
    #: By bytes and key, in the order of their first offsets.
    suspects: dict[tuple[bytes, str | None], Suspect] = field(default_factory=dict)

    @property
    def next_offset(self) -> int:
        """Where a client begins: with the last record that was judged, by which the log is known again.

        A leader that has judged none yet begins with the one before, which the leader before it had checked.
        """
        return max(0, self.fetched - 1) if self.last is None else self.last.offset

    def advance(self) -> None:
        """All before the first suspect is checked."""
        first = next(iter(self.suspects.values()), None)
        checked = self.judged if first is None else first.first_offset
        self.known.checked_offset = max(self.known.checked_offset, checked)


class Tail:
    """What one leader knows of the order of its topics. It outlives the clients that it reads with.

    :param topics: the state topics.
    :param progress: of every partition; the offsets checked are moved on there.
    :param ends: where each partition ended when the leader began.
    :param epoch: the epoch the leader publishes under.
    :param wake: called when there are null records to send.
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        sources: Mapping[str, StateSource],
        database: UnitsOfWork,
        progress: Iterable[Progress],
        *,
        ends: Mapping[Partition, int],
        epoch: int,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._sources = sources
        self._database = database
        self._epoch = epoch
        self._clock = clock
        self._wake = wake
        self._partitions = {
            (known.topic, known.partition): _Checked(
                known,
                fetched=known.checked_offset,
                judged=known.checked_offset,
                gate=ends.get((known.topic, known.partition), 0),
            )
            for known in progress
            if known.topic in self._topics
        }
        self._unjudged: deque[tuple[Partition, Record]] = deque()
        self._has_suspects = asyncio.Event()
        #: Partitions that were found to have lost what was in them.
        self._lost: set[Partition] = set()

    @property
    def doubt(self) -> str | None:
        """Why no heartbeat may say that readers are right, or None: what was there is not checked, or is not ours."""
        overtaking = next((suspect for suspect in self._suspects() if suspect.is_overtaking), None)
        if overtaking is not None:
            epoch, version = overtaking.believed
            return (
                f"{overtaking.topic}/{overtaking.partition} holds, at {overtaking.last_offset}, a state of epoch"
                f" {epoch}, version {version}, which this database has not come to"
            )
        unchecked = [
            name
            for name, checked in self._partitions.items()
            if checked.is_unsettled or checked.known.checked_offset < checked.gate
        ]
        return f"{unchecked[0][0]}/{unchecked[0][1]} is not checked yet" if unchecked else None

    def note_sent(self, sent: Sent) -> None:
        """These offsets are this leader's own."""
        checked = self._partitions.get((sent.topic, sent.partition))
        if checked is None:
            return
        for first, last in sent.ranges:
            if checked.own and checked.own[-1][1] + 1 == first:
                checked.own[-1] = checked.own[-1][0], last
            else:
                checked.own.append((first, last))
            # What follows checked records without a gap needs no second look and is stored as checked with the deletes,
            # so that a next leader finds only what this one was sending when it ended.
            if first == checked.known.checked_offset:
                checked.known.checked_offset = last + 1

    def reached(self, partition: Partition) -> int:
        """Up to where the log is known to have been read, whoever wrote it."""
        checked = self._partitions.get(partition)
        return 0 if checked is None else checked.reached

    def take_lost(self) -> set[Partition]:
        """Partitions that lost something and do not show it by their length, told once."""
        lost, self._lost = self._lost, set()
        return lost

    def start_over(self, partition: Partition, *, offset: int, end: int) -> None:
        """The log is another one, or shorter: what is known of it holds no more. Before it is read again."""
        self._unjudged = deque((other, record) for other, record in self._unjudged if other != partition)
        checked = self._partitions[partition]
        checked.fetched = checked.judged = checked.known.checked_offset = offset
        checked.gate, checked.reached = end, 0
        checked.last, checked.is_unsettled = None, False
        checked.own.clear()
        checked.suspects.clear()

    def judge(self) -> None:
        """Tell own records from others. Only while nothing is being sent: then every offset of one's own is known."""
        pending, self._unjudged = self._unjudged, deque()
        touched: set[Partition] = set()
        for partition, record in pending:
            checked = self._partitions[partition]
            own = checked.own
            while own and own[0][1] < record.offset:
                own.popleft()
            if not own or record.offset < own[0][0]:
                self.suspect(partition, record)
            checked.judged = record.offset + 1
            checked.last = record
            checked.reached = max(checked.reached, checked.judged)
            touched.add(partition)
        for partition in touched:
            self._partitions[partition].advance()

    def suspect(self, partition: Partition, record: Any) -> None:
        """A record that is to be answered."""
        topic, raw_key = self._topics[partition[0]], record.key or b""
        key = readable_key(self._sources[topic.name], raw_key)
        suspects = self._partitions[partition].suspects
        is_blocking = key is None or is_astray(topic, partition[1], raw_key)
        if is_blocking and record.value is None:
            # The one tombstone that readers accept, whoever sent it.
            is_answer = suspects.pop((raw_key, None), None) is not None
            if not raw_key and not is_answer and not self._partitions[partition].known.lost:
                # A log was filled by a leader whose database was restored since, or this one would know of the loss.
                self._lost.add(partition)
            return
        for answered in dict.fromkeys((key, None) if is_blocking else (key,)):
            known = suspects.get((raw_key, answered))
            if known is None:
                known = Suspect(*partition, raw_key, answered, record.offset, record.offset)
                suspects[raw_key, answered] = known
            known.last_offset = record.offset
            known.not_before = 0.0
            if answered is not None:
                self._note_claim(topic, known, record.value)
        self._has_suspects.set()
        if is_blocking:
            self._wake()

    def nulls(self) -> dict[Partition, list[Suspect]]:
        """What is to be answered with a null record for exactly its bytes: no reader can say which subject it is of."""
        found: dict[Partition, list[Suspect]] = {}
        for name, checked in self._partitions.items():
            unreadable = [suspect for suspect in checked.suspects.values() if suspect.key is None]
            if unreadable:
                found[name] = unreadable
        return found

    def answered(self, suspect: Suspect, *, up_to_offset: int) -> None:
        """The owner's own record of the key has come, or will come, behind this offset."""
        checked = self._partitions[suspect.topic, suspect.partition]
        place = suspect.raw_key, suspect.key
        known = checked.suspects.get(place)
        if known is suspect and known.last_offset <= up_to_offset:
            del checked.suspects[place]
            checked.advance()

    async def read(self, kafka: Kafka, *, is_sending: Callable[[], bool]) -> None:
        """Follow the log until cancelled. Raises LogUnavailableError."""
        if not self._partitions:
            return
        reader = kafka.reader(
            client_id="outbox-tail",
            wait_max_milliseconds=_FETCH_WAIT_MILLISECONDS,
            partition_fetch_max_bytes=_PARTITION_FETCH_MAX_BYTES,
        )
        assigned = {
            TopicPartition(wire_name(kafka.topic_prefix, topic), number): (topic, number)
            for topic, number in self._partitions
        }
        # What was fetched from a client before and not judged is fetched again.
        self._unjudged.clear()
        for checked in self._partitions.values():
            checked.fetched = checked.judged
            checked.is_unsettled = checked.last is not None
        try:
            await reader.start()
            reader.assign({wire: self._partitions[partition].next_offset for wire, partition in assigned.items()})
            while True:
                if not is_sending():
                    self.judge()
                if len(self._unjudged) + sum(len(each.suspects) for each in self._partitions.values()) > _SUSPECTS_MAX:
                    await asyncio.sleep(_ROOM_INTERVAL_SECONDS)
                else:
                    await self._read_some(reader, assigned)
        except (KafkaError, OSError) as error:
            raise LogUnavailableError(repr(error)) from error
        finally:
            await stop_reader(reader)

    async def heal(self) -> None:
        """Have what the database says published for each suspect, until cancelled."""
        while True:
            self._has_suspects.clear()
            now = asyncio.get_running_loop().time()
            suspects = [suspect for suspect in self._suspects() if suspect.key is not None]
            due = [suspect for suspect in suspects if suspect.not_before <= now and not suspect.is_overtaking]
            for suspect in due:
                await self._heal(suspect)
            if due:
                continue
            later = min((each.not_before for each in suspects if not each.is_overtaking), default=None)
            try:
                async with asyncio.timeout(None if later is None else later - now):
                    await self._has_suspects.wait()
            except TimeoutError:
                continue

    async def _read_some(self, reader: RecordReader, assigned: Mapping[TopicPartition, Partition]) -> None:
        try:
            found = await reader.read(timeout_milliseconds=_POLL_MILLISECONDS, records_max=_FETCH_RECORDS_MAX)
        except OffsetOutOfRangeError as error:
            await self._skip_what_is_gone(reader, assigned, error)
            return
        for wire, records in found.items():
            partition = assigned[wire]
            self._unjudged.extend((partition, record) for record in self._settled(partition, records))
            self._partitions[partition].fetched = records[-1].offset + 1
        if not found and self.doubt is not None:
            # Where the last records were compacted away, no record says that the end is reached.
            for wire, offset in (await reader.positions()).items():
                checked = self._partitions[assigned[wire]]
                if offset > checked.next_offset:
                    checked.is_unsettled = False
                if not self._unjudged and offset > checked.judged:
                    checked.fetched = checked.judged = offset
                    checked.advance()

    def _settled(self, partition: Partition, records: Sequence[Record]) -> Sequence[Record]:
        """Those not judged yet. Raises LogUnavailableError where what was judged last is another record now.

        A log that lost its tail may be as long as before when it is looked at: others wrote in the place of what is
        gone. Compaction takes records away and never changes one.
        """
        checked = self._partitions[partition]
        if not checked.is_unsettled:
            if checked.last is None and records[0].offset < checked.judged:
                # Judged by the leader before; from now on a client that is made anew has to find it as it is.
                checked.last = records[0]
                return records[1:]
            return records
        checked.is_unsettled = False
        first, last = records[0], checked.last
        if last is None or first.offset != last.offset:
            return records
        if (first.key, first.value) != (last.key, last.value):
            self._lost.add(partition)
            raise LogUnavailableError(f"{partition[0]}/{partition[1]} has another record at {first.offset}")
        return records[1:]

    async def _skip_what_is_gone(
        self, reader: RecordReader, assigned: Mapping[TopicPartition, Partition], error: OffsetOutOfRangeError
    ) -> None:
        """A shorter log: what it lost is for the watch over its length to say, and nothing here can be checked."""
        lost = list(error.args[0]) if error.args and isinstance(error.args[0], dict) else list(assigned)
        for wire, (begin, end) in (await reader.bounds(lost)).items():
            checked = self._partitions[assigned[wire]]
            checked.fetched = checked.judged = begin if checked.fetched <= begin else end
            checked.last, checked.is_unsettled = None, False
            checked.advance()
            reader.seek(wire, checked.fetched)

    async def _heal(self, suspect: Suspect) -> None:
        """Publish what the database says of the key, above what was found."""
        key, found, offset = suspect.key or "", suspect.found, suspect.last_offset
        if suspect.believed > (self._epoch, FOLLOWED_VERSION_MAX):
            suspect.is_overtaking = True
            _log.critical(
                "a state this database has not come to: it was restored, or the record is forged; no heartbeat until"
                " `kisum restore finish` was run",
                believed=suspect.believed,
                epoch=self._epoch,
                **found,
            )
            return
        above = suspect.version
        try:
            async with self._database.unit_of_work() as work:
                revision, is_known = await publish_again(
                    work, self._sources[suspect.topic], key, now=self._clock(), above=above, lane=Lane.INTERACTIVE
                )
        except DomainError as error:
            if error.kind is not Kind.UNAVAILABLE:
                _log.exception("the state of a key could not be published again", **found)
            is_passing = error.kind is Kind.UNAVAILABLE
            suspect.not_before = _in_seconds(_RETRY_INTERVAL_SECONDS if is_passing else _DEFECT_INTERVAL_SECONDS)
            return
        except Exception:  # noqa: BLE001 - logged with its key, and tried again
            # A defect of the service, told by name; the others go on.
            _log.exception("the state of a key could not be published again", **found)
            suspect.not_before = _in_seconds(_DEFECT_INTERVAL_SECONDS)
            return
        self.answered(suspect, up_to_offset=offset)
        if revision is None:
            _log.error("the log holds a key of which nothing can be said", **found)
        elif not is_known:
            _log.error("the log holds a key the database does not know; withdrawn", revision=str(revision), **found)
        else:
            _log.error(
                "a record this relay did not send; the key's state was published again above it",
                claimed=above,
                revision=str(revision),
                **found,
            )

    def _note_claim(self, topic: Topic, suspect: Suspect, value: bytes | None) -> None:
        """Remember what the record says of itself.

        A record that readers of this version do not believe may be believed by those of another, if its version is one
        there can be; but it is never a sign that the database was restored.
        """
        claimed = epoch, version = revision_of(value)
        if not is_believable(epoch, version):
            return
        try:
            if topic.record_key(decode(value or b"", topic.payloads)) == suspect.raw_key:
                suspect.believed = max(suspect.believed, claimed)
        except UndecodableEventError:
            pass
        if epoch == self._epoch and version <= FOLLOWED_VERSION_MAX:
            suspect.version = max(suspect.version, version)

    def _suspects(self) -> Iterable[Suspect]:
        return [suspect for checked in self._partitions.values() for suspect in checked.suspects.values()]


def _in_seconds(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
