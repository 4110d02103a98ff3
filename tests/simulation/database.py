"""PostgreSQL for simulations, as far as an owner's rows and its outbox need it.

`SimulatedDatabase` is where units of work come from and what a relay's `Store` reads; both pass the same suite as the
real ones (tests/integration/outbox/test_store.py). Statements travel to the server, wait there for the locks of others,
and are done at one moment; then the answer travels. So a client that is killed or cut off knows no more of its last
statement than a real one. Transactions are read committed: what others wrote is seen once they have committed, and a
row is locked from its first write, or from `lock`, until the end of the transaction.

A connection belongs to the process whose code opened it (`loop.Process`): the server hears of its death, and ends one
that is silent for too long. Time is the loop's, what the server calls the time is `clock`, and chance comes from the
given `Random`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, Final, TypeVar
from uuid import UUID

from contracts.envelope import encode
from contracts.errors import DomainError
from contracts.identifiers import CompanyId, UserId
from contracts.payload import Payload
from contracts.topics import Topic
from infra.outbox.store import Backlog, Progress, Publisher, Refusal, Row, Server, Settlement, StoreLostError
from infra.outbox.writer import Lane, Revision, envelop_for, state_row
from infra.postgres.database import DatabaseUnavailableError
from tests.simulation.loop import Process, SimulatedLoop, current_process
from tests.simulation.truth import Row as Aggregate

#: A topic and a key of it.
Subject = tuple[str, str]
Result = TypeVar("Result")

# The limits of infra/outbox/store.py and infra/postgres/database.py.
_RELAY_CONNECT_SECONDS: Final = 3.0
_RELAY_QUERY_SECONDS: Final = 10.0
_RELAY_SILENCE_SECONDS: Final = 5.0
_PROOF_AGE_MAX_SECONDS: Final = 3.0
_WORK_CONNECT_SECONDS: Final = 2.0
_WORK_ANSWER_SECONDS: Final = 7.0
_WORK_LOCK_SECONDS: Final = 4.0
_WORK_SILENCE_SECONDS: Final = 15.0

_LATENCY_SECONDS: Final = (0.0002, 0.003)


class _UnansweredError(Exception):
    """The connection broke, was ended or cannot be made, or a statement took longer than it may."""


@dataclass(frozen=True)
class PendingState:
    """A row of `outbox_states`."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str]
    epoch: int
    version: int
    lane: int
    position: int
    occurred_at: datetime
    enqueued_at: datetime
    refused_at: datetime | None = None
    refusal: str | None = None

    @property
    def revision(self) -> tuple[int, int]:
        return self.epoch, self.version


@dataclass(frozen=True)
class PendingFact:
    """A row of `outbox_facts`."""

    id: int
    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str]
    enqueued_at: datetime
    refused_at: datetime | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class StoredProgress:
    """A row of `outbox_partitions`."""

    topic: str
    partition: int
    topic_id: str
    acknowledged_offset: int
    checked_offset: int
    lost_at: datetime | None = None


@dataclass(frozen=True)
class StoredRestore:
    """A row of `outbox_restores`."""

    id: int
    epoch_before: int | None = None
    epoch: int | None = None
    republished: int = 0
    withdrawn: int = 0
    finished_at: datetime | None = None


@dataclass(frozen=True)
class Snapshot:
    """All that is committed, as a base backup has it. Rows are frozen, so that copies of the tables are enough."""

    aggregates: Mapping[Subject, Aggregate]
    states: Mapping[Subject, PendingState]
    facts: Mapping[int, PendingFact]
    partitions: Mapping[tuple[str, int], StoredProgress]
    publisher: Publisher
    restores: Sequence[StoredRestore]
    #: The last of the identities given out, of positions and facts.
    identities: int
    server: Server


@dataclass
class _Transaction:
    """What one has written; nobody else sees it before the commit."""

    began_at: datetime
    aggregates: dict[Subject, Aggregate] = field(default_factory=dict)
    states: dict[Subject, PendingState] = field(default_factory=dict)
    facts: list[PendingFact] = field(default_factory=list)
    notifies: bool = False


@dataclass(eq=False)
class _Session:
    """A connection as both ends know it."""

    process: Process | None
    #: After how much silence the server ends it.
    silence_max_seconds: float
    ended: bool = False
    #: Ended by the client, who uses it no more.
    abandoned: bool = False
    #: Ended by a server that the client was not reached by at that time.
    unheard: bool = False
    transaction: _Transaction | None = None
    locks: set[tuple[str, ...]] = field(default_factory=set)
    notified: Callable[[], None] | None = None
    #: The last statement, until its answer has arrived.
    statement: "asyncio.Task[None] | None" = None
    silence: asyncio.TimerHandle | None = None

    @property
    def context(self) -> Context | None:
        return None if self.process is None else self.process.context


class SimulatedDatabase:
    """One database on a server of its own.

    :param clock: the server's wall clock.
    :param latency_seconds: between what a message takes, either way.

    :ivar changed: called at the very moment a committed row of an aggregate comes to be another one, with its topic
        and key, and none where a restored database has it no more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        random: Random,
        *,
        clock: Callable[[], datetime],
        name: str = "database",
        latency_seconds: tuple[float, float] = _LATENCY_SECONDS,
    ) -> None:
        self.process = loop.process(name) if isinstance(loop, SimulatedLoop) else None
        self.changed: Callable[[Subject, Aggregate | None], None] | None = None
        self._loop = loop
        self._random = random
        self._clock = clock
        self._latency_seconds = latency_seconds
        self._aggregates: dict[Subject, Aggregate] = {}
        self._states: dict[Subject, PendingState] = {}
        self._facts: dict[int, PendingFact] = {}
        self._partitions: dict[tuple[str, int], StoredProgress] = {}
        self._publisher = Publisher(epoch=1, epoch_complete=True, publish_counter=0)
        self._restores: list[StoredRestore] = []
        self._identities = 0
        self._server = Server("7305800000000000000", 1)
        self._sessions: dict[_Session, None] = {}
        self._locks: dict[tuple[str, ...], _Session] = {}
        self._waiting: dict[tuple[str, ...], deque[tuple[_Session, asyncio.Future[None]]]] = {}
        self._leader: _Session | None = None
        self._down_until = 0.0
        self._refuses_connections = True
        self._cut_until: dict[Process, float] = {}
        self._known_processes: set[Process] = set()

    # What a history and its judge may look at: what is committed.

    def aggregate(self, topic: str, key: str) -> Aggregate | None:
        return self._aggregates.get((topic, key))

    def aggregates(self) -> list[Aggregate]:
        return list(self._aggregates.values())

    def states(self) -> list[PendingState]:
        """What is pending or set aside, in the order of lanes and positions."""
        return sorted(self._states.values(), key=lambda pending: (pending.lane, pending.position))

    def facts(self) -> list[PendingFact]:
        return sorted(self._facts.values(), key=lambda pending: pending.id)

    def partitions(self) -> list[StoredProgress]:
        return list(self._partitions.values())

    def publisher(self) -> Publisher:
        return replace(self._publisher, restore=min((each.id for each in self._unfinished()), default=None))

    def restores(self) -> list[StoredRestore]:
        return list(self._restores)

    @property
    def has_leader(self) -> bool:
        return self._leader is not None

    # What can happen.

    def put(self, *rows: Aggregate) -> None:
        """Have rows committed at once, as a seed does; nothing is published."""
        for row in rows:
            self._aggregates[row.topic.name, row.key] = row
            self._tell((row.topic.name, row.key), row)

    def go_down(self, seconds: float) -> None:
        """The server breaks off: connections are lost and transactions rolled back; nobody reaches it for so long.

        Whether who tries is refused at once or has to wait for a time limit is drawn.
        """
        self._refuses_connections = self._random.random() < 0.5
        self._down_until = max(self._down_until, self._loop.time() + seconds)
        for session in list(self._sessions):
            session.unheard = not self._refuses_connections
            self._end(session)

    def cut_off(self, process: Process, seconds: float) -> None:
        """What a process sends and is sent does not arrive for so long, and arrives then if there is still a use."""
        self._cut_until[process] = max(self._cut_until.get(process, 0.0), self._loop.time() + seconds)

    def heal(self) -> None:
        """The server and its network are there again."""
        self._down_until = 0.0
        self._cut_until.clear()

    def snapshot(self) -> Snapshot:
        """A base backup."""
        return Snapshot(
            dict(self._aggregates),
            dict(self._states),
            dict(self._facts),
            dict(self._partitions),
            self._publisher,
            tuple(self._restores),
            self._identities,
            self._server,
        )

    def restore(self, snapshot: Snapshot, *, tells: bool) -> None:
        """Be as a backup has it: rows, outbox, counter and epoch. Every connection breaks.

        :param tells: whether PostgreSQL's system id or timeline is another one then, as after a recovery; a file system
            that was put back says nothing.
        """
        for session in list(self._sessions):
            self._end(session)
        before, self._aggregates = self._aggregates, dict(snapshot.aggregates)
        self._states, self._facts = dict(snapshot.states), dict(snapshot.facts)
        self._partitions, self._publisher = dict(snapshot.partitions), snapshot.publisher
        self._restores, self._identities = list(snapshot.restores), snapshot.identities
        self._server = snapshot.server
        if tells and self._random.random() < 0.5:
            self._server = replace(self._server, system_id=str(self._random.getrandbits(63)))
        elif tells:
            self._server = replace(self._server, timeline=self._server.timeline + 1)
        for subject in dict.fromkeys([*before, *self._aggregates]):
            if before.get(subject) != self._aggregates.get(subject):
                self._tell(subject, self._aggregates.get(subject))

    def request_restore(self) -> None:
        """What `kisum restore finish` writes: what is here is the truth from now on. A leader carries it out."""
        self._restores.append(StoredRestore(len(self._restores) + 1))

    # What its clients ask of it.

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator["SimulatedWork"]:
        """One transaction, as `Database.unit_of_work`. Raises DatabaseUnavailableError at any moment of it.

        When that is raised by the commit itself, it may have been made all the same.
        """
        try:
            session = await self._connect(_WORK_CONNECT_SECONDS, silence_max_seconds=_WORK_SILENCE_SECONDS)
        except _UnansweredError as lost:
            raise DatabaseUnavailableError(str(lost)) from lost
        work = SimulatedWork(self, session)
        try:
            try:
                yield work
            except DomainError as error:
                if error.remembered:
                    await work.commit()
                raise
            await work.commit()
        finally:
            self._hang_up(session)

    async def open_store(self) -> "SimulatedStore":
        """A relay's connection. Raises StoreLostError."""
        try:
            return SimulatedStore(
                self, await self._connect(_RELAY_CONNECT_SECONDS, silence_max_seconds=_RELAY_SILENCE_SECONDS)
            )
        except _UnansweredError as lost:
            raise StoreLostError(str(lost)) from lost

    # Connections.

    async def _connect(self, timeout_seconds: float, *, silence_max_seconds: float) -> _Session:
        session = _Session(_process_or_none(), silence_max_seconds)
        patience = self._loop.time() + timeout_seconds
        await asyncio.sleep(self._latency())
        while (away_seconds := self._away_seconds(session.process)) > 0:
            if self._refuses_connections and self._down_until > self._loop.time():
                raise _UnansweredError("the connection is refused")
            if self._loop.time() + away_seconds > patience:
                await asyncio.sleep(patience - self._loop.time())
                raise _UnansweredError("no connection in time")
            await asyncio.sleep(away_seconds)
        self._sessions[session] = None
        if session.process is not None and session.process not in self._known_processes:
            self._known_processes.add(session.process)
            session.process.on_death(partial(self._bury, session.process))
        self._await_statement(session)
        return session

    def _bury(self, process: Process) -> None:
        """The kernel closes what a dead process had open; who is cut off as well cannot say so."""
        for session in self._sessions:
            if session.process is process:
                self._hang_up(session)

    def _hang_up(self, session: _Session) -> None:
        """The client is gone; the server hears of it as of everything, later."""
        session.abandoned = True
        if not session.ended and not self._is_cut_off(session.process):
            self._loop.call_later(self._latency(), self._end, session, context=self._context)

    def _end(self, session: _Session) -> None:
        """The server gives the connection up: its transaction is rolled back, its locks are free."""
        if session.ended:
            return
        session.ended = True
        session.unheard = session.unheard or self._is_cut_off(session.process)
        del self._sessions[session]
        if session.silence is not None:
            session.silence.cancel()
        if session.statement is not None:
            session.statement.cancel()
        if self._leader is session:
            self._leader = None
        self._release(session)

    def _await_statement(self, session: _Session) -> None:
        session.silence = self._loop.call_later(session.silence_max_seconds, self._end, session, context=self._context)

    async def ask(
        self, session: _Session, statement: Callable[[], Awaitable[Result]], *, timeout_seconds: float
    ) -> Result:
        """Have a statement done and wait for its answer. Raises _UnansweredError."""
        if session.abandoned:
            raise _UnansweredError("the connection is closed")
        if session.ended:
            # A machine that is away sends no reset.
            away_seconds = self._away_seconds(session.process) if session.unheard else 0.0
            await asyncio.sleep(max(self._latency(), min(away_seconds, timeout_seconds)))
            raise _UnansweredError("the connection was ended")
        answer: asyncio.Future[Result] = self._loop.create_future()
        session.statement = self._start(self._serve(session, statement, answer))
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answer
        except TimeoutError:
            self._hang_up(session)
            raise _UnansweredError("no answer in time") from None
        except asyncio.CancelledError:
            self._hang_up(session)
            raise

    async def _serve(
        self, session: _Session, statement: Callable[[], Awaitable[Result]], answer: "asyncio.Future[Result]"
    ) -> None:
        """The server's side of a statement, which goes on whatever becomes of the client."""
        try:
            await self._travel(session)
            if session.silence is not None:
                session.silence.cancel()
            try:
                result = await statement()
            except _UnansweredError as refused:
                self._roll_back(session)
                await self._travel(session)
                if not answer.done():
                    answer.set_exception(refused)
                return
            self._await_statement(session)
            await self._travel(session)
            if not answer.done():
                answer.set_result(result)
        except asyncio.CancelledError:
            if not answer.done() and not session.unheard:
                answer.set_exception(_UnansweredError("the connection broke"))

    def _start(self, coroutine: Any) -> "asyncio.Task[None]":
        return self._loop.create_task(coroutine) if self.process is None else self.process.start(coroutine)

    @property
    def _context(self) -> Context | None:
        return None if self.process is None else self.process.context

    def _latency(self) -> float:
        return self._random.uniform(*self._latency_seconds)

    async def _travel(self, session: _Session) -> None:
        await asyncio.sleep(self._latency())
        while session.process is not None and self._is_cut_off(session.process):  # noqa: ASYNC110 - it may get longer
            await asyncio.sleep(self._cut_until[session.process] - self._loop.time())

    def _is_cut_off(self, process: Process | None) -> bool:
        return process is not None and self._cut_until.get(process, 0.0) > self._loop.time()

    def _away_seconds(self, process: Process | None) -> float:
        cut_until = 0.0 if process is None else self._cut_until.get(process, 0.0)
        return max(self._down_until, cut_until) - self._loop.time()

    # Locks.

    async def _lock(self, session: _Session, *key: str, timeout_seconds: float = _WORK_LOCK_SECONDS) -> None:
        """Wait for a row and hold it until the transaction ends."""
        holder = self._locks.get(key)
        if holder is session:
            return
        if holder is None:
            self._locks[key] = session
            session.locks.add(key)
            return
        granted: asyncio.Future[None] = self._loop.create_future()
        waiter = (session, granted)
        self._waiting.setdefault(key, deque()).append(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await granted
        except TimeoutError:
            raise _UnansweredError("the row stayed locked") from None
        finally:
            waiting = self._waiting.get(key)
            if waiting is not None and waiter in waiting:
                waiting.remove(waiter)

    def _is_locked(self, *key: str) -> bool:
        return key in self._locks

    def _release(self, session: _Session) -> None:
        for key in sorted(session.locks):
            del self._locks[key]
            waiting = self._waiting.get(key, deque())
            while waiting:
                following, granted = waiting.popleft()
                if not following.ended and not granted.done():
                    self._locks[key] = following
                    following.locks.add(key)
                    granted.set_result(None)
                    break
            if not waiting:
                self._waiting.pop(key, None)
        session.locks.clear()

    def _roll_back(self, session: _Session) -> None:
        session.transaction = None
        self._release(session)

    # Statements of units of work.

    def _transaction(self, session: _Session) -> _Transaction:
        if session.transaction is None:
            session.transaction = _Transaction(began_at=self._clock())
        return session.transaction

    async def _lock_aggregate(self, session: _Session, subject: Subject) -> Aggregate | None:
        transaction = self._transaction(session)
        await self._lock(session, "aggregate", *subject)
        return transaction.aggregates.get(subject, self._aggregates.get(subject))

    async def _write_aggregate(self, session: _Session, row: Aggregate) -> None:
        transaction = self._transaction(session)
        subject = (row.topic.name, row.key)
        await self._lock(session, "aggregate", *subject)
        transaction.aggregates[subject] = row

    async def _keys(self, session: _Session, topic: str, after: str | None, limit: int) -> list[str]:
        subjects = {*self._aggregates, *self._transaction(session).aggregates}
        return sorted(key for of, key in subjects if of == topic and (after is None or key > after))[:limit]

    async def _epoch(self, session: _Session) -> int:
        self._transaction(session)
        return self._publisher.epoch

    async def _upsert_state(self, session: _Session, written: dict[str, Any]) -> None:
        """The statement of `publish_state`."""
        transaction = self._transaction(session)
        transaction.notifies = True
        subject = _place(written["topic"], written["key"], written["version"])
        # An identity is taken before a conflict is known of.
        self._identities += 1
        new = PendingState(**written, position=self._identities, enqueued_at=transaction.began_at)
        await self._lock(session, "state", *subject)
        known = transaction.states.get(subject, self._states.get(subject))
        if known is None:
            transaction.states[subject] = new
            return
        replaces = new.revision > known.revision or (known.refused_at is not None and new.revision == known.revision)
        if not replaces and new.lane >= known.lane:
            return
        kept = replace(new, position=known.position, enqueued_at=known.enqueued_at) if replaces else known
        transaction.states[subject] = replace(kept, lane=min(known.lane, new.lane))

    async def _insert_fact(self, session: _Session, topic: str, key: str, value: bytes, event_type: str) -> None:
        transaction = self._transaction(session)
        transaction.notifies = True
        self._identities += 1
        transaction.facts.append(
            PendingFact(self._identities, topic, key, value, {"type": event_type}, transaction.began_at)
        )

    async def _commit(self, session: _Session) -> None:
        await asyncio.sleep(self._latency())
        transaction, session.transaction = session.transaction, None
        if transaction is None:
            return
        self._states |= transaction.states
        self._facts |= {fact.id: fact for fact in transaction.facts}
        self._aggregates |= transaction.aggregates
        for subject, row in transaction.aggregates.items():
            self._tell(subject, row)
        self._release(session)
        if transaction.notifies:
            self._notify()

    def _tell(self, subject: Subject, row: Aggregate | None) -> None:
        if self.changed is not None:
            self.changed(subject, row)

    def _notify(self) -> None:
        for session in self._sessions:
            if session.notified is not None:
                self._loop.call_later(self._latency(), self._deliver, session, context=session.context)

    def _deliver(self, session: _Session) -> None:
        if not session.ended and session.notified is not None and not self._is_cut_off(session.process):
            session.notified()

    # Statements of relays, each a transaction of its own.

    async def _try_lead(self, session: _Session) -> bool:
        if self._leader is None:
            self._leader = session
        return self._leader is session

    async def _listen(self, session: _Session, notified: Callable[[], None]) -> None:
        session.notified = notified

    async def _read_states(self, lane: Lane, limit: int, behind: int) -> tuple[datetime, list[Row]]:
        # The time is taken when the transaction begins, what is committed a moment later.
        read_at = self._clock()
        await asyncio.sleep(self._latency())
        found = [pending for pending in self.states() if pending.lane == lane and pending.refused_at is None]
        found = [pending for pending in found if pending.position > behind]
        return read_at, [
            Row(
                topic=pending.topic,
                key=pending.key,
                value=pending.value,
                headers=_encoded(pending.headers),
                epoch=pending.epoch,
                version=pending.version,
                position=pending.position,
            )
            for pending in found[:limit]
        ]

    async def _read_facts(self, limit: int) -> list[Row]:
        found = [pending for pending in self.facts() if pending.refused_at is None]
        return [
            Row(
                topic=pending.topic,
                key=pending.key,
                value=pending.value,
                headers=_encoded(pending.headers),
                fact_id=pending.id,
            )
            for pending in found[:limit]
        ]

    async def _settle(self, settlement: Settlement, newly_acknowledged: int) -> set[Subject]:
        left: set[Subject] = set()
        for row in settlement.acknowledged:
            if row.fact_id is not None:
                self._facts.pop(row.fact_id, None)
                continue
            subject = _place(row.topic, row.key, row.version)
            pending = self._states.get(subject)
            if pending is None or pending.revision != (row.epoch, row.version) or self._is_locked("state", *subject):
                left.add((row.topic, row.key))
                continue
            del self._states[subject]
        counter = self._publisher.publish_counter + newly_acknowledged
        self._publisher = replace(self._publisher, publish_counter=counter)
        for moved in settlement.moved:
            partition = (moved.topic, moved.partition)
            known = self._partitions.get(partition)
            if known is None:
                known = StoredProgress(moved.topic, moved.partition, moved.topic_id, 0, 0)
            if known.topic_id == moved.topic_id:
                self._partitions[partition] = replace(
                    known,
                    acknowledged_offset=max(known.acknowledged_offset, moved.acknowledged_offset),
                    checked_offset=max(known.checked_offset, moved.checked_offset),
                )
        return left

    async def _refuse(self, session: _Session, refusal: Refusal) -> None:
        row, refused_at = refusal.row, self._clock()
        if row.fact_id is not None:
            fact = self._facts.get(row.fact_id)
            if fact is not None:
                self._facts[fact.id] = replace(fact, refused_at=refused_at, refusal=refusal.reason)
            return
        subject = _place(row.topic, row.key, row.version)
        await self._lock(session, "state", *subject, timeout_seconds=_RELAY_QUERY_SECONDS)
        pending = self._states.get(subject)
        if pending is not None and pending.revision == (row.epoch, row.version):
            self._states[subject] = replace(pending, refused_at=refused_at, refusal=refusal.reason)
        self._release(session)
        self._notify()

    async def _recover(self, progress: Iterable[Progress]) -> None:
        for known in progress:
            self._partitions[known.topic, known.partition] = StoredProgress(
                known.topic, known.partition, known.topic_id, known.acknowledged_offset, known.checked_offset
            )

    async def _read_publisher(self) -> Publisher:
        return self.publisher()

    async def _read_server(self) -> Server:
        return self._server

    async def _adopt_server(self, server: Server) -> None:
        self._publisher = replace(self._publisher, server=server)

    async def _refuse_to_publish(self, reason: str) -> None:
        self._publisher = replace(self._publisher, refusal=reason)

    def _unfinished(self) -> list[StoredRestore]:
        return [each for each in self._restores if each.finished_at is None]

    def _change_unfinished(self, change: Callable[[StoredRestore], StoredRestore]) -> None:
        self._restores = [change(each) if each.finished_at is None else each for each in self._restores]

    async def _begin_epoch(self, epoch: int, server: Server) -> None:
        before = self._publisher.epoch
        self._publisher = Publisher(epoch, epoch_complete=False, publish_counter=0, server=server)
        self._change_unfinished(lambda each: replace(each, epoch_before=each.epoch_before or before, epoch=epoch))

    async def _note_restore(self, republished: int, withdrawn: int) -> None:
        self._change_unfinished(lambda each: replace(each, republished=republished, withdrawn=withdrawn))

    async def _complete_epoch(self) -> None:
        self._publisher = replace(self._publisher, epoch_complete=True)
        finished_at = self._clock()
        self._change_unfinished(lambda each: each if each.epoch is None else replace(each, finished_at=finished_at))

    async def _read_progress(self) -> list[Progress]:
        return [
            Progress(
                stored.topic,
                stored.partition,
                stored.topic_id,
                stored.acknowledged_offset,
                stored.checked_offset,
                lost=stored.lost_at is not None,
            )
            for stored in self._partitions.values()
        ]

    async def _lose(self, topics: set[str]) -> None:
        for partition, stored in self._partitions.items():
            if stored.topic in topics and stored.lost_at is None:
                self._partitions[partition] = replace(stored, lost_at=self._clock())

    async def _read_backlog(self) -> Backlog:
        found: list[PendingState | PendingFact] = [*self._states.values(), *self._facts.values()]
        pending = [each.enqueued_at for each in found if each.refused_at is None]
        return Backlog(
            depth=len(pending), refused=len(found) - len(pending), oldest_at=min(pending) if pending else None
        )


def _place(topic: str, key: str, _version: int) -> Subject:
    """Where a pending state lies: there is one row per key, whatever its version."""
    return topic, key


def _process_or_none() -> Process | None:
    try:
        return current_process()
    except LookupError:
        return None


def _encoded(headers: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value.encode()) for name, value in headers.items())


class SimulatedWork:
    """A transaction, where operations of the real thing have SQLAlchemy's session.

    Every method raises DatabaseUnavailableError where the connection is lost or a row stays locked for too long.
    """

    def __init__(self, database: SimulatedDatabase, session: _Session) -> None:
        self._database = database
        self._session = session

    async def lock(self, topic: str, key: str) -> Aggregate | None:
        """An aggregate's row, locked until the end of the transaction; one that is not there can be locked as well."""
        return await self._ask(lambda: self._database._lock_aggregate(self._session, (topic, key)))

    async def keys(self, topic: str, *, after: str | None, limit: int) -> list[str]:
        """The keys of a topic's rows, in order, from behind `after` on."""
        return await self._ask(lambda: self._database._keys(self._session, topic, after, limit))

    async def write(self, row: Aggregate) -> None:
        """Insert or replace an aggregate's row, whose version is one more than before."""
        await self._ask(lambda: self._database._write_aggregate(self._session, row))

    async def publish_state(
        self,
        topic: Topic,
        payload: Payload,
        *,
        company_id: CompanyId,
        version: int,
        occurred_at: datetime,
        actor_user_id: UserId | None = None,
        lane: Lane = Lane.INTERACTIVE,
    ) -> Revision:
        """As `infra.outbox.writer.publish_state`, of which it has all but the SQL."""
        epoch = await self._ask(lambda: self._database._epoch(self._session))
        event = envelop_for(
            topic,
            payload,
            epoch=epoch,
            company_id=company_id,
            version=version,
            occurred_at=occurred_at,
            actor_user_id=actor_user_id,
        )
        row = state_row(topic, event, lane)
        await self._ask(lambda: self._database._upsert_state(self._session, row))
        return Revision(topic.name, row["key"], event.epoch, event.version)

    async def publish_row(self, row: Aggregate, *, occurred_at: datetime, lane: Lane = Lane.INTERACTIVE) -> Revision:
        """Publish what an aggregate's row says."""
        return await self.publish_state(
            row.topic,
            row.payload(),
            company_id=row.company_id,
            version=row.version,
            occurred_at=occurred_at,
            lane=lane,
        )

    async def publish_fact(
        self, topic: Topic, payload: Payload, *, company_id: CompanyId, version: int, occurred_at: datetime
    ) -> UUID:
        """As `infra.outbox.writer.publish_fact`."""
        epoch = await self._ask(lambda: self._database._epoch(self._session))
        event = envelop_for(
            topic, payload, epoch=epoch, company_id=company_id, version=version, occurred_at=occurred_at
        )
        key, value = topic.record_key(event).decode(), encode(event)
        await self._ask(lambda: self._database._insert_fact(self._session, topic.name, key, value, event.type))
        return event.event_id

    async def commit(self) -> None:
        """For the unit of work only."""
        await self._ask(lambda: self._database._commit(self._session))

    async def _ask(self, statement: Callable[[], Awaitable[Result]]) -> Result:
        try:
            return await self._database.ask(self._session, statement, timeout_seconds=_WORK_ANSWER_SECONDS)
        except _UnansweredError as lost:
            raise DatabaseUnavailableError(str(lost)) from lost


class SimulatedStore:
    """As `infra.outbox.store.OutboxStore`. Every method raises StoreLostError when the connection is gone."""

    def __init__(self, database: SimulatedDatabase, session: _Session) -> None:
        self._database = database
        self._session = session
        self._one_at_a_time = asyncio.Lock()
        self._proved_at = asyncio.get_running_loop().time()

    async def try_lead(self) -> bool:
        return await self._ask(lambda: self._database._try_lead(self._session))

    async def listen(self, notified: Callable[[], None]) -> None:
        await self._ask(lambda: self._database._listen(self._session, notified))

    async def prove(self) -> None:
        await self._ask(lambda: asyncio.sleep(0))

    async def prove_if_old(self) -> None:
        if asyncio.get_running_loop().time() - self._proved_at > _PROOF_AGE_MAX_SECONDS:
            await self.prove()

    async def read_states(self, lane: Lane, limit: int, *, behind: int = 0) -> tuple[datetime, list[Row]]:
        return await self._ask(lambda: self._database._read_states(lane, limit, behind))

    async def read_facts(self, limit: int) -> list[Row]:
        return await self._ask(lambda: self._database._read_facts(limit))

    async def settle(self, settlement: Settlement, *, newly_acknowledged: int) -> set[Subject]:
        left = await self._ask(lambda: self._database._settle(settlement, newly_acknowledged))
        for refusal in settlement.refused:
            await self._ask(partial(self._database._refuse, self._session, refusal))
        return left

    async def publisher(self) -> Publisher:
        return await self._ask(self._database._read_publisher)

    async def progress(self) -> list[Progress]:
        return await self._ask(self._database._read_progress)

    async def lose(self, topics: Iterable[str]) -> None:
        lost = set(topics)
        await self._ask(lambda: self._database._lose(lost))

    async def recover(self, progress: Iterable[Progress]) -> None:
        recovered = list(progress)
        await self._ask(lambda: self._database._recover(recovered))

    async def server(self) -> Server:
        return await self._ask(self._database._read_server)

    async def adopt_server(self, server: Server) -> None:
        await self._ask(lambda: self._database._adopt_server(server))

    async def refuse(self, reason: str) -> None:
        await self._ask(lambda: self._database._refuse_to_publish(reason))

    async def begin_epoch(self, epoch: int, server: Server) -> None:
        await self._ask(lambda: self._database._begin_epoch(epoch, server))

    async def note_restore(self, *, republished: int, withdrawn: int) -> None:
        await self._ask(lambda: self._database._note_restore(republished, withdrawn))

    async def complete_epoch(self) -> None:
        await self._ask(self._database._complete_epoch)

    async def backlog(self) -> Backlog:
        return await self._ask(self._database._read_backlog)

    def terminate(self) -> None:
        self._database._hang_up(self._session)

    async def _ask(self, statement: Callable[[], Awaitable[Result]]) -> Result:
        async with self._one_at_a_time:
            asked_at = asyncio.get_running_loop().time()
            try:
                answer = await self._database.ask(self._session, statement, timeout_seconds=_RELAY_QUERY_SECONDS)
            except _UnansweredError as lost:
                raise StoreLostError(str(lost)) from lost
            self._proved_at = asked_at
            return answer
