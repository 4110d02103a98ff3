"""One history: owners, relays, a broker and readers on a simulated loop; a plan's steps happen to them.

The relays, the log's healing, the feed, the cache and the decision are the real ones. What is simulated stands behind
their ports: the loop (`loop.py`), Kafka (`kafka.py`), PostgreSQL (`database.py`).
"""

import asyncio
import re
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any, Final

from access.digest import documents as documents_of_cache
from access.freshness import Bounds, Clocks
from access.path import AccessPath
from contracts.errors import DomainError
from contracts.topics import TOPICS, Topic
from infra.kafka.partitioner import partition_of
from infra.outbox.relay import Relay
from infra.outbox.writer import Lane
from tests.simulation.database import SimulatedDatabase, Snapshot
from tests.simulation.kafka import SimulatedBroker, SimulatedKafka
from tests.simulation.loop import Process, SimulatedLoop, SimulationStuckError
from tests.simulation.oracle import Oracle, Violation, questions
from tests.simulation.plan import OWNERS, READERS, RELAYS, SUBJECTS, Plan
from tests.simulation.plan import TOPICS as STATE_TOPIC_NAMES
from tests.simulation.source import SimulatedSource
from tests.simulation.subjects import (
    CROWD,
    MODULE,
    crowd_row,
    first_rows,
    has_future,
    is_of_the_future,
    key_of,
    of_the_future,
    owner_of,
    row_of,
)
from tests.simulation.truth import ROOT_KEY, Row, documents

#: The bounds of `Bounds`, shortened so that a history can outlast them. As there, a first filling may be as old as
#: clocks can differ.
BOUNDS: Final = Bounds(
    soft_seconds=3, hard_seconds=8, hard_reading_seconds=20, complete_seconds=7, skew_seconds=5, silence_seconds=5
)
_BEGINNING: Final = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
_BOOT_SECONDS: Final = 1000.0
_ASK_INTERVAL_MAX_SECONDS: Final = 1.0
#: The same when all faults are over, and what they left behind is being mended.
_LATE_ASK_INTERVAL_MAX_SECONDS: Final = 4.0
_SETTLE_SECONDS: Final = 90.0
_CALLBACKS_MAX: Final = 200_000
_SETTLE_INTERVAL_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 0.5
#: Between the first life of the topics and the rest, so that there is something to compact.
_BEFORE_SECONDS: Final = 60.0
#: As `min.compaction.lag.ms` is to real outages: longer than any fault of a history keeps an owner from healing.
_COMPACTION_LAG_SECONDS: Final = 50.0
#: Longer than an owner takes to answer a record from somewhere when all faults are over.
_QUIET_SECONDS: Final = 5.0
_VIOLATIONS_MAX: Final = 10
_ASKED_AFTER_APPLY_SHARE: Final = 0.15
_LONG_OVER_SHARE: Final = 0.2
_ASTRAY_SHARE: Final = 0.3
_MEMBERSHIPS: Final = "auth.memberships.v1"
_MAP_SIZE_BYTES: Final = 8 * 1024 * 1024
_FOLDER: Final = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108 - folders of its own in it
_TOPICS: Final[Mapping[str, Topic]] = {topic.name: topic for topic in TOPICS}


@dataclass
class Outcome:
    """What came of a history."""

    violations: list[Violation] = field(default_factory=list)
    asked: int = 0
    allowed: int = 0
    unknown: int = 0
    virtual_seconds: float = 0.0
    trace: list[str] = field(default_factory=list)


class _Reader:
    """An instance of a service that decides: one machine, one cache."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.boots = 1
        self.process: Process | None = None
        self.path: AccessPath | None = None

    @property
    def is_asked(self) -> bool:
        """A process that is dead or frozen answers nobody."""
        return self.path is not None and self.process is not None and self.process.alive and not self.process.frozen


class History:
    """Runs a plan once."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._random = Random(plan.schedule_seed)
        self._loop = SimulatedLoop(self._random, callbacks_max=_CALLBACKS_MAX)
        self._broker = SimulatedBroker(self._loop, self._random)
        self._offsets = dict(plan.clock_offsets)
        self._owners = {
            name: SimulatedDatabase(
                self._loop, self._random, clock=partial(self._wall, "sources"), name=f"{name} database"
            )
            for name in OWNERS
        }
        self._readers = {name: _Reader(name, folder / name.replace(" ", "-")) for name in READERS}
        self._oracle = Oracle(BOUNDS, self._wall_of_sources)
        for database in self._owners.values():
            database.changed = self._changed
        self._processes: dict[str, Process] = {}
        self._away_seconds: dict[str, float] = {}
        self._retired: set[str] = set()
        self._backups: dict[str, Snapshot] = {}
        self._operations: list[tuple[Process, asyncio.Task[None]]] = []
        self._ask_interval_max_seconds = _ASK_INTERVAL_MAX_SECONDS
        self._asked_after_apply_share = _ASKED_AFTER_APPLY_SHARE
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """To its end."""
        with closing(self._loop):
            try:
                self._loop.run_until_complete(self._run())
            except SimulationStuckError as stuck:
                self._violate("no end", "everywhere", str(stuck))
            finally:
                for reader in self._readers.values():
                    self._stop_reader(reader)
        self.outcome.virtual_seconds = self._loop.time()
        return self.outcome

    def _changed(self, subject: tuple[str, str], row: Row | None) -> None:
        self._oracle.note(subject, None if is_of_the_future(row) else row, self._loop.time())

    # Clocks.

    def _wall(self, machine: str) -> datetime:
        return _BEGINNING + timedelta(microseconds=_microseconds(self._loop.time() + self._offsets[machine]))

    def _wall_of_sources(self, at_seconds: float) -> datetime:
        return _BEGINNING + timedelta(microseconds=_microseconds(at_seconds + self._offsets["sources"]))

    def _clocks(self, reader: _Reader) -> Clocks:
        loop, name = self._loop, reader.name
        beginning = int(_BEGINNING.timestamp() * 1_000_000)
        return Clocks(
            wall_us=lambda: beginning + _microseconds(loop.time() + self._offsets[name]),
            boot_us=lambda: _microseconds(_BOOT_SECONDS + loop.time()),
            boot_id=f"boot {reader.boots}",
        )

    # From beginning to end.

    async def _run(self) -> None:
        await self._begin()
        asking = self._loop.create_task(self._ask_again_and_again())
        for step in self._plan.steps:
            await asyncio.sleep(step.after_seconds)
            self._tell(str(step))
            getattr(self, "_do_" + step.kind.replace(" ", "_"))(**step.what)
            self._ask_all()
        self._ask_interval_max_seconds = _LATE_ASK_INTERVAL_MAX_SECONDS
        await self._end()
        asking.cancel()

    async def _begin(self) -> None:
        """The owners have published, all of it twice, long before the readers are started for the first time."""
        for owner in OWNERS:
            self._process(f"{owner} service")
        for relay in RELAYS:
            self._start_relay(relay)
        await self._write_first_rows()
        await self._until(self._all_is_published, "the first rows were not published")
        self._retired.update(RELAYS)
        for relay in RELAYS:
            self._processes[relay].kill()
        await asyncio.sleep(_BEFORE_SECONDS)
        self._retired.clear()
        for topic in STATE_TOPIC_NAMES:
            self._broker.compact(topic, lag_seconds=_COMPACTION_LAG_SECONDS)
        for relay in RELAYS:
            self._start_relay(relay)
        for reader in self._readers.values():
            self._start_reader(reader)
        await self._until(self._all_are_ready, "the readers did not become ready")
        for owner in OWNERS:
            self._do_backup(owner)

    async def _write_first_rows(self) -> None:
        rows = [*first_rows(), *(crowd_row(number, 1) for number in range(len(CROWD)))]
        for owner, database in self._owners.items():
            for version in (1, 2):
                async with database.unit_of_work() as work:
                    for row in rows:
                        if row.topic.owner == owner:
                            await work.write(replace(row, version=version))
                            await work.publish_row(replace(row, version=version), occurred_at=self._wall("sources"))

    async def _end(self) -> None:
        """All faults are over; every cache holds what the rows say, and so does one filled from a compacted log."""
        self._tell("all faults are over")
        self._offsets.update(self._plan.clock_offsets)
        self._broker.heal()
        for owner in self._owners.values():
            owner.heal()
        for process in list(self._processes.values()):
            process.thaw()
        await self._until(self._all_is_published, "what was written was not published")
        await self._until(self._nothing_is_under_way, "an operation did not end")
        await self._until(self._is_readable_again, "what readers do not understand was not replaced")
        if not await self._until(self._all_is_as_the_rows_say, None):
            self._differences("a live cache", self._readers.values())
            return
        self._ask_all()
        if self._random.random() < _LONG_OVER_SHARE:
            await self._send_what_is_long_over()
        await self._rebuild_from_nothing()

    async def _send_what_is_long_over(self) -> None:
        """The oldest state there is of each key, long after that was taken back, and states under keys of others.

        One membership has a status of the future by then; the last that was readable of it comes again too.
        """
        number = self._random.randrange(SUBJECTS["membership"][1])
        revoked = _MEMBERSHIPS, key_of("membership", number).encode()
        readable = [
            record.value for record in self._broker.records(_MEMBERSHIPS) if (_MEMBERSHIPS, record.key) == revoked
        ][-1:]
        self._do_a_status_of_the_future("membership", number)
        await self._until(self._nothing_is_under_way, "an operation did not end")
        await self._until(self._all_is_published, "what was written was not published")
        await asyncio.sleep(BOUNDS.hard_seconds)
        self._asked_after_apply_share = 1.0
        sent = {}
        for topic in STATE_TOPIC_NAMES:
            for partition in range(_TOPICS[topic].partitions):
                records = [record for record in self._broker.records(topic, partition) if record.key and record.value]
                oldest = {record.key: record.value for record in reversed(records)}
                newest = [record.value for record in {record.key: record for record in records}.values()]
                for key, value in oldest.items():
                    values = [value, *(readable if (topic, key) == revoked else []), self._random.choice(newest)]
                    for each in values:
                        sent[topic, partition, key] = self._broker.append_raw(topic, partition, key, each)

        def are_answered() -> bool:
            last = {
                (topic, each.partition, each.key): each.offset
                for topic in STATE_TOPIC_NAMES
                for each in self._broker.records(topic)
            }
            return all(last[place] > offset for place, offset in sent.items())

        await self._until(are_answered, "what was long over stayed the last of its keys")
        await self._until(self._is_readable_again, "what readers do not understand was not replaced")
        if not await self._until(self._all_is_as_the_rows_say, None):
            self._differences("a cache after old states came again", self._readers.values())

    async def _rebuild_from_nothing(self) -> None:
        # Kafka compacts nothing that is younger than an hour; by then an owner has answered what came from somewhere.
        await self._until(self._is_quiet, "the owners did not come to an end with what they publish")
        self._broker.final_compaction()
        fresh = _Reader("a rebuild", self._readers[READERS[0]].folder.with_name("rebuild"))
        self._offsets[fresh.name] = self._offsets["sources"]
        self._readers[fresh.name] = fresh
        self._start_reader(fresh)
        if not await self._until(lambda: self._is_as_the_rows_say(fresh), None):
            self._differences("a cache rebuilt from the compacted log", [fresh])
        self._ask_all()

    async def _until(self, holds: Callable[[], bool], otherwise: str | None) -> bool:
        end = self._loop.time() + _SETTLE_SECONDS
        while not holds():
            if self._loop.time() > end:
                if otherwise is not None:
                    self._violate("no end", "everywhere", otherwise)
                return False
            await asyncio.sleep(_SETTLE_INTERVAL_SECONDS)
        return True

    # Who there is.

    def _process(self, name: str, away_seconds: float = _AWAY_SECONDS) -> Process:
        """A new process of this name, which is started again some time after its death."""
        process = self._loop.process(name)
        self._processes[name] = process
        self._away_seconds[name] = away_seconds
        process.on_death(lambda: self._loop.call_soon(self._died, process, context=self._loop.outside.context))
        return process

    def _died(self, process: Process) -> None:
        if self._processes.get(process.name) is process and process.name not in self._retired:
            self._tell(f"{process.name} is dead")
            self._loop.call_later(self._away_seconds[process.name], self._start_again, process)

    def _start_again(self, process: Process) -> None:
        if self._processes.get(process.name) is not process:
            return
        self._tell(f"{process.name} starts again")
        if process.name in RELAYS:
            self._start_relay(process.name)
        elif process.name in self._readers:
            self._start_reader(self._readers[process.name])
        else:
            self._process(process.name)

    def _start_relay(self, name: str) -> None:
        owner = name.partition(" ")[0]
        process = self._process(name)
        database = self._owners[owner]
        topics = tuple(topic for topic in TOPICS if topic.owner == owner and _is_simulated(topic))
        relay = Relay(
            open_store=database.open_store,
            database=database,  # type: ignore[arg-type]  # its units of work are of its own
            kafka=SimulatedKafka(self._broker, process),
            topics=topics,
            sources={topic.name: SimulatedSource(topic) for topic in topics if topic.cleanup == "compact"},
            clock=partial(self._wall, "sources"),
        )
        process.start(relay.run())

    def _start_reader(self, reader: _Reader) -> None:
        process = self._process(reader.name)
        reader.process = process
        reader.path = AccessPath.open(
            reader.folder,
            service="finance",
            modules=(MODULE,),
            kafka=SimulatedKafka(self._broker, process),
            root_key=ROOT_KEY.public_key(),
            clocks=self._clocks(reader),
            bounds=BOUNDS,
            map_size_bytes=_MAP_SIZE_BYTES,
        )
        reader.path.cache.apply = self._asked_after(reader, reader.path.cache.apply)  # type: ignore[method-assign]
        process.on_death(partial(self._stop_reader, reader))
        process.start(reader.path.run())

    @staticmethod
    def _stop_reader(reader: _Reader) -> None:
        """What a kernel does: the memory map is closed, the file stays."""
        if reader.path is not None:
            reader.path.close()
            reader.path = None

    def _service(self, owner: str) -> Process:
        """Where the owner's operations run."""
        return self._processes[f"{owner} service"]

    def _operate(self, owner: str, operation: Coroutine[Any, Any, None]) -> None:
        """Have a service do something, beside everything else."""
        process = self._service(owner)
        self._operations.append((process, process.start(operation)))

    def _nothing_is_under_way(self) -> bool:
        return all(operation.done() or not process.alive for process, operation in self._operations)

    # Writes.

    async def _write(self, topic: str, key: str, successor: Callable[[int], Row], open_seconds: float) -> None:
        """One operation: the row locked, written one version further, and published with it."""
        with suppress(DomainError):
            async with self._owners[_TOPICS[topic].owner].unit_of_work() as work:
                known = await work.lock(topic, key)
                row = successor(1 if known is None else known.version + 1)
                await work.write(row)
                await work.publish_row(row, occurred_at=self._wall("sources"))
                if open_seconds:
                    await asyncio.sleep(open_seconds)

    async def _write_in_bulk(self, topic: str, keys: Iterable[str]) -> None:
        """Rows written again as they are, with one version more, as a job does."""
        with suppress(DomainError):
            async with self._owners[_TOPICS[topic].owner].unit_of_work() as work:
                for key in sorted(keys):
                    known = await work.lock(topic, key)
                    if known is not None:
                        row = replace(known, version=known.version + 1)
                        await work.write(row)
                        await work.publish_row(row, occurred_at=self._wall("sources"), lane=Lane.BULK)

    # What a plan's steps do.

    def _do_write(self, subject: str, number: int, becomes: str, open_seconds: float) -> None:
        now = self._wall("sources")
        topic = row_of(subject, number, becomes, 1, now).topic.name
        self._operate(
            owner_of(subject),
            self._write(
                topic,
                key_of(subject, number),
                lambda version: row_of(subject, number, becomes, version, now),
                open_seconds,
            ),
        )

    def _do_a_status_of_the_future(self, subject: str, number: int) -> None:
        """A newer version of the owner says what readers of today do not know."""
        now = self._wall("sources")
        ordinary = row_of(subject, number, SUBJECTS[subject][0][0], 1, now)
        if not has_future(ordinary):
            return
        self._operate(
            owner_of(subject),
            self._write(
                ordinary.topic.name,
                ordinary.key,
                lambda version: of_the_future(replace(ordinary, version=version)),
                0.0,
            ),
        )

    def _do_touch(self, rows: int, first: int, *, revoked: bool) -> None:
        self._operate(
            "auth", self._touch([crowd_row(number, 1).key for number in range(rows - 1)], first, revoked=revoked)
        )

    async def _touch(self, others: Sequence[str], first: int, *, revoked: bool) -> None:
        if revoked:
            # The job has come to the others, then somebody revokes, then the job comes to the revoked one.
            now = self._wall("sources")
            await self._write_in_bulk(_MEMBERSHIPS, others)
            key = key_of("membership", first)
            await self._write(
                _MEMBERSHIPS, key, lambda version: row_of("membership", first, "removed", version, now), 0.0
            )
            await self._write_in_bulk(_MEMBERSHIPS, [key])
        else:
            await self._write_in_bulk(_MEMBERSHIPS, [*others, key_of("membership", first)])

    def _do_kill(self, process: str, steps: int, away_seconds: float) -> None:
        self._away_seconds[process] = away_seconds
        self._processes[process].kill_after(steps)

    def _do_freeze(self, process: str, seconds: float) -> None:
        frozen = self._processes[process]
        frozen.freeze()
        self._loop.call_later(seconds, frozen.thaw)

    def _do_restart(self, process: str, away_seconds: float, *, boots: bool) -> None:
        self._away_seconds[process] = away_seconds
        self._processes[process].kill()
        self._readers[process].boots += boots

    def _do_replay(self, process: str) -> None:
        path = self._readers[process].path
        if path is not None:
            path.request_rebuild()

    def _do_broker_down(self, seconds: float) -> None:
        self._broker.go_down(seconds)

    def _do_broker_slow(self, seconds: float) -> None:
        self._broker.slow(seconds)

    def _do_acknowledgements_lost(self, seconds: float) -> None:
        self._broker.lose_acknowledgements(seconds)

    def _do_cut_off(self, process: str, seconds: float) -> None:
        cut = self._processes[process]
        self._broker.partition_reader(cut, seconds)
        if process in RELAYS:
            self._owners[process.partition(" ")[0]].cut_off(cut, seconds)

    def _do_partition_without_a_leader(self, topic: str, number: int, seconds: float) -> None:
        self._broker.lead_nobody(topic, number % _TOPICS[topic].partitions, seconds)

    def _do_compact(self, topic: str) -> None:
        self._broker.compact(topic, lag_seconds=_COMPACTION_LAG_SECONDS)

    def _do_heartbeats_collected(self) -> None:
        for owner in OWNERS:
            topic = f"{owner}.heartbeats.v1"
            self._broker.trim(topic, 0, self._broker.bounds(topic, 0)[1])

    def _do_topic_made_again(self, topic: str) -> None:
        self._broker.recreate(topic)

    def _do_tail_lost(self, topic: str, count: int) -> None:
        partition = self._random.randrange(_TOPICS[topic].partitions)
        # Readers may have read a record from somewhere that the owner did not come to: were it lost, what takes its
        # place could not be told from it (decision 0016).
        self._broker.lose_tail(topic, partition, min(count, self._broker.own_tail(topic, partition)))

    def _do_poison(self, subject: str, number: int, poison: str) -> None:
        """A record that no relay sent."""
        topic = _TOPICS[row_of(subject, number, SUBJECTS[subject][0][0], 1, _BEGINNING).topic.name]
        key = key_of(subject, number).encode()
        partition = partition_of(key, topic.partitions)
        before = [record for record in self._broker.records(topic.name, partition) if record.value]
        own = [record for record in before if record.key == key]
        # Most records come where their keys belong.
        lies_in = self._random.randrange(topic.partitions) if self._random.random() < _ASTRAY_SHARE else partition
        # What takes the place of a lost record to the offset cannot be told from it (decision 0016).
        if not own or any(self._broker.has_lost_tail(topic.name, number) for number in (partition, lies_in)):
            return
        value = own[-1].value or b""
        match poison:
            case "an old record":
                self._broker.duplicate(topic.name, partition, self._random.choice(own).offset)
                return
            case "an unreadable key":
                key = b"\xff\x00 no key"
            case "a tombstone":
                self._broker.append_raw(topic.name, lies_in, key, None)
                return
            case "the value of another key":
                value = self._random.choice(before).value or b""
            case "no JSON":
                value = b"{"
            case "cut off":
                value = value[: len(value) // 2]
            case "a status of the future":
                value = value.replace(b'"status":"active"', b'"status":"on_leave"')
            case _:
                value = re.sub(rb'"version":\d+', b'"version":0', value)
        self._broker.append_raw(topic.name, lies_in, key, value)

    def _do_refused_by_the_log(self, subject: str, number: int) -> None:
        refused = key_of(subject, number).encode()
        self._broker.refuses = lambda _, record: record.key == refused and b'"unknown"' not in (record.value or b"")

    def _do_database_down(self, owner: str, seconds: float) -> None:
        self._owners[owner].go_down(seconds)

    def _do_backup(self, owner: str) -> None:
        self._backups[owner] = self._owners[owner].snapshot()

    def _do_restore(self, owner: str, finish_after_seconds: float, *, tells: bool) -> None:
        """The newest backup is put back, and some time later its operator says so."""
        backup = self._backups[owner]
        database = self._owners[owner]
        database.restore(backup, tells=tells)
        self._loop.call_later(finish_after_seconds, database.request_restore)

    def _do_clock_step(self, machine: str, seconds: float) -> None:
        self._offsets[machine] += seconds

    # Judging.

    def _asked_after(self, reader: _Reader, apply: Callable[..., Any]) -> Callable[..., Any]:
        """The cache's `apply`, after which the reader is asked now and then: what lasts for a moment counts too."""

        def apply_and_be_asked(*arguments: Any, **named: Any) -> Any:
            head = apply(*arguments, **named)
            if self._random.random() < self._asked_after_apply_share:
                self._loop.call_soon(self._ask, reader, context=self._loop.outside.context)
            return head

        return apply_and_be_asked

    def _ask_all(self) -> None:
        for reader in self._readers.values():
            self._ask(reader)

    def _ask(self, reader: _Reader) -> None:
        """Ask a reader everything."""
        if not reader.is_asked or reader.path is None:
            return
        now = self._loop.time()
        differ = abs(self._offsets[reader.name] - self._offsets["sources"])
        for question in questions():
            answer = question.ask(reader.path)
            self.outcome.asked += 1
            self.outcome.unknown += answer is None
            self.outcome.allowed += answer is True
            found = self._oracle.judge(question, answer, now, reader.name, clocks_differ_seconds=differ)
            if found is not None:
                self._note(found)

    async def _ask_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(self._random.random() * self._ask_interval_max_seconds)
            self._ask_all()

    def _all_is_published(self) -> bool:
        return all(
            owner.has_leader and not [pending for pending in owner.states() if pending.refused_at is None]
            for owner in self._owners.values()
        )

    def _all_are_ready(self) -> bool:
        return all(reader.path is not None and reader.path.ready.is_ready for reader in self._readers.values())

    def _is_readable_again(self) -> bool:
        """Whether all is; what is not is written once more, by an owner that says what everybody understands."""
        unreadable = self._unreadable()
        for subject, number in unreadable:
            self._do_write(subject, number, SUBJECTS[subject][0][0], open_seconds=0.0)
        return not unreadable and self._all_is_published()

    def _unreadable(self) -> list[tuple[str, int]]:
        """Subjects whose last state readers do not understand, or the log did not take."""
        refused = {
            (pending.topic, pending.key)
            for owner in self._owners.values()
            for pending in owner.states()
            if pending.refused_at is not None
        }
        found = []
        for subject, (_, count) in SUBJECTS.items():
            for number in range(count):
                topic = row_of(subject, number, SUBJECTS[subject][0][0], 1, _BEGINNING).topic
                key = key_of(subject, number)
                row = self._owners[topic.owner].aggregate(topic.name, key)
                if (topic.name, key) in refused or is_of_the_future(row):
                    found.append((subject, number))
        return found

    def _is_quiet(self) -> bool:
        """Whether nobody has sent a state for a while."""
        newest_ms = max(record.timestamp for topic in STATE_TOPIC_NAMES for record in self._broker.records(topic))
        return self._loop.time() - newest_ms / 1000 >= _QUIET_SECONDS

    def _said_by_rows(self) -> dict[tuple[str, str], Any]:
        return {
            (kind, key): document
            for owner in self._owners.values()
            for kind, key, document in documents(
                (row for row in owner.aggregates() if not is_of_the_future(row)),
                epoch=owner.publisher().epoch,
                modules=(MODULE,),
            )
        }

    def _is_as_the_rows_say(self, reader: _Reader) -> bool:
        path = reader.path
        if path is None or not path.ready.is_ready:
            return False
        return _said_by_cache(path) == self._said_by_rows()

    def _all_is_as_the_rows_say(self) -> bool:
        return self._all_is_published() and all(self._is_as_the_rows_say(reader) for reader in self._readers.values())

    def _differences(self, what: str, readers: Iterable[_Reader]) -> None:
        expected = self._said_by_rows()
        for reader in readers:
            if reader.path is None:
                self._violate("difference", reader.name, f"{what} is not there")
                continue
            found = _said_by_cache(reader.path)
            different = [
                f"{subject}: rows say {expected.get(subject)}, the cache {found.get(subject)}"
                for subject in sorted({*expected, *found})
                if expected.get(subject) != found.get(subject)
            ]
            why = reader.path.ready.why
            if different or why is not None:
                shown = "; ".join(different[:2])
                self._violate("difference", reader.name, f"{what}: {len(different)} subjects, {why}: {shown}")

    def _violate(self, kind: str, where: str, what: str) -> None:
        self._note(Violation(kind, self._loop.time(), where, what))

    def _note(self, violation: Violation) -> None:
        self._tell(str(violation))
        if len(self.outcome.violations) < _VIOLATIONS_MAX:
            self.outcome.violations.append(violation)

    def _tell(self, line: str) -> None:
        self.outcome.trace.append(f"{self._loop.time():8.3f} s  {line}")


def _microseconds(seconds: float) -> int:
    """All clocks round alike, so that one moment is one microsecond to all of them."""
    return round(seconds * 1_000_000)


def _said_by_cache(path: AccessPath) -> dict[tuple[str, str], Any]:
    return {(kind, key): document for kind, key, document in documents_of_cache(path.cache)}


def _is_simulated(topic: Topic) -> bool:
    return topic.name in STATE_TOPIC_NAMES or topic.name.endswith(".heartbeats.v1")


def run(plan: Plan) -> Outcome:
    """Run a plan in a folder of its own."""
    folder = Path(mkdtemp(prefix="kisum-history-", dir=_FOLDER))
    try:
        return History(plan, folder).run()
    finally:
        shutil.rmtree(folder)
