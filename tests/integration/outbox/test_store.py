"""One suite for the store and the writer on PostgreSQL, and for those a simulation has in their place."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from contracts.envelope import EventTooLargeError
from contracts.errors import DomainError, Kind
from contracts.events.auth import MembershipStatus
from contracts.events.checkout import Item, TrialStarted
from contracts.identifiers import CompanyId, new_id
from contracts.payload import Payload
from contracts.topics import Topic
from infra.outbox.store import OutboxStore, Progress, Refusal, Row, Settlement, Store, StoreLostError
from infra.outbox.writer import Lane, Revision, publish_fact, publish_state
from infra.postgres.database import Database, DatabaseUnavailableError
from infra.postgres.provision import ServiceDatabase, provision
from tests.harness.runtime import Runtime
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import (
    BY_NAME,
    COMPANY,
    MEMBERSHIPS,
    NOW,
    SUBSCRIPTIONS,
    grant,
    key_of,
    migrate,
    user,
)
from tests.simulation.database import SimulatedDatabase, SimulatedWork
from tests.simulation.loop import SimulatedLoop
from tests.simulation.source import SimulatedSource
from tests.simulation.truth import MembershipRow

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


@dataclass(frozen=True)
class Pending:
    """A row of `outbox_states` as the tests look at it. `status` is what its value says."""

    key: str
    epoch: int
    version: int
    lane: int
    position: int
    is_refused: bool
    status: str


class Outbox(Protocol):
    """A database with an outbox, and what it holds."""

    def unit_of_work(self) -> AbstractAsyncContextManager[Any]: ...

    async def open_store(self) -> Store: ...

    async def publish_state(self, work: Any, topic: Topic, payload: Payload, **how: Any) -> Revision: ...

    async def publish_fact(self, work: Any, topic: Topic, payload: Payload, **how: Any) -> UUID: ...

    async def pending(self) -> list[Pending]: ...

    async def raise_epoch(self) -> None: ...

    async def request_restore(self) -> None: ...

    async def restores(self) -> list[tuple[int | None, int | None, int, int, bool]]: ...

    async def waiting(self) -> int: ...

    async def now(self) -> datetime: ...


class PostgresOutbox:
    """The real one."""

    def __init__(self, url: str, database: Database) -> None:
        self._url = url
        self._database = database

    def unit_of_work(self) -> AbstractAsyncContextManager[Any]:
        return self._database.unit_of_work()

    async def open_store(self) -> Store:
        return await OutboxStore.open(self._url)

    async def publish_state(self, work: Any, topic: Topic, payload: Payload, **how: Any) -> Revision:
        return await publish_state(work, topic, payload, **how)

    async def publish_fact(self, work: Any, topic: Topic, payload: Payload, **how: Any) -> UUID:
        return await publish_fact(work, topic, payload, **how)

    async def pending(self) -> list[Pending]:
        rows = await self._fetch("select *, refused_at is not null as is_refused from outbox_states order by position")
        return [
            Pending(
                row["key"],
                row["epoch"],
                row["version"],
                row["lane"],
                row["position"],
                row["is_refused"],
                json.loads(row["value"])["data"]["status"],
            )
            for row in rows
        ]

    async def raise_epoch(self) -> None:
        await self._fetch("update outbox_publisher set epoch = epoch + 1")

    async def request_restore(self) -> None:
        await self._fetch("insert into outbox_restores default values")

    async def restores(self) -> list[tuple[int | None, int | None, int, int, bool]]:
        rows = await self._fetch(
            "select epoch_before, epoch, republished, withdrawn, finished_at is not null"
            " from outbox_restores order by id"
        )
        return [tuple(row) for row in rows]

    async def waiting(self) -> int:
        rows = await self._fetch(
            "select 1 from pg_locks join pg_stat_activity using (pid)"
            " where not granted and datname = current_database()"
        )
        return len(rows)

    async def now(self) -> datetime:
        (row,) = await self._fetch("select clock_timestamp() as now")
        return row["now"]  # type: ignore[no-any-return]

    async def empty(self) -> None:
        for table in ("outbox_states", "outbox_facts", "outbox_partitions", "outbox_restores", "members"):
            await self._fetch(f"delete from {table}")  # noqa: S608 - constants
        await self._fetch(
            "update outbox_publisher set epoch = 1, epoch_complete = true, publish_counter = 0,"
            " system_id = null, timeline = null, refusal = null"
        )

    async def _fetch(self, statement: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()


class SimulatedOutbox:
    """The one of simulations."""

    def __init__(self) -> None:
        self._database = SimulatedDatabase(
            asyncio.get_running_loop(),
            random.Random(3),  # noqa: S311 - delays, no secrets
            clock=lambda: datetime.now(UTC),
        )

    def unit_of_work(self) -> AbstractAsyncContextManager[Any]:
        return self._database.unit_of_work()

    async def open_store(self) -> Store:
        return await self._database.open_store()

    async def publish_state(self, work: SimulatedWork, topic: Topic, payload: Payload, **how: Any) -> Revision:
        return await work.publish_state(topic, payload, **how)

    async def publish_fact(self, work: SimulatedWork, topic: Topic, payload: Payload, **how: Any) -> UUID:
        return await work.publish_fact(topic, payload, **how)

    async def pending(self) -> list[Pending]:
        return [
            Pending(
                row.key,
                row.epoch,
                row.version,
                row.lane,
                row.position,
                row.refused_at is not None,
                json.loads(row.value)["data"]["status"],
            )
            for row in sorted(self._database.states(), key=lambda row: row.position)
        ]

    async def raise_epoch(self) -> None:
        known = self._database._publisher
        self._database._publisher = replace(known, epoch=known.epoch + 1)

    async def request_restore(self) -> None:
        self._database.request_restore()

    async def restores(self) -> list[tuple[int | None, int | None, int, int, bool]]:
        return [
            (each.epoch_before, each.epoch, each.republished, each.withdrawn, each.finished_at is not None)
            for each in self._database.restores()
        ]

    async def waiting(self) -> int:
        return sum(map(len, self._database._waiting.values()))

    async def now(self) -> datetime:
        return datetime.now(UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postgres(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PostgresOutbox]:
    described = ServiceDatabase(name=f"{runtime.new_prefix()}store", password="application", owner_password="owner")
    await provision(runtime.administrator_url, {"store": described})
    await migrate(described.owner_url(runtime.administrator_url), tmp_path_factory.mktemp("versions"))
    url = described.url(runtime.administrator_url)
    database = Database(url, application_name="test")
    try:
        yield PostgresOutbox(url, database)
    finally:
        await database.close()


@pytest_asyncio.fixture(loop_scope="session", params=["postgresql", "simulated"])
async def outbox(request: pytest.FixtureRequest, postgres: PostgresOutbox) -> Outbox:
    if request.param == "simulated":
        return SimulatedOutbox()
    await postgres.empty()
    return postgres


async def publish_in(
    outbox: Outbox,
    work: Any,
    number: int,
    version: int = 1,
    *,
    lane: Lane = INTERACTIVE,
    status: MembershipStatus = MembershipStatus.ACTIVE,
) -> Revision:
    return await outbox.publish_state(
        work, MEMBERSHIPS, grant(number, status), company_id=COMPANY, version=version, occurred_at=NOW, lane=lane
    )


async def publish(outbox: Outbox, number: int, version: int = 1, **how: Any) -> Revision:
    async with outbox.unit_of_work() as work:
        return await publish_in(outbox, work, number, version, **how)


async def fail(outbox: Outbox, number: int, error: type[Exception], version: int = 1) -> None:
    """Publish, and have the unit of work end with an error."""
    async with outbox.unit_of_work() as work:
        await publish_in(outbox, work, number, version)
        raise error


async def publish_trial(outbox: Outbox, company: CompanyId, version: int) -> UUID:
    fact = TrialStarted(
        subscription_id=new_id(), items=(Item(kind="package", key="basic_venue"),), effective_at=NOW, trial_end=NOW
    )
    async with outbox.unit_of_work() as work:
        return await outbox.publish_fact(
            work, SUBSCRIPTIONS, fact, company_id=company, version=version, occurred_at=NOW
        )


@asynccontextmanager
async def opened(outbox: Outbox) -> AsyncIterator[Store]:
    store = await outbox.open_store()
    try:
        yield store
    finally:
        store.terminate()


async def read(store: Store, lane: Lane = INTERACTIVE, limit: int = 100) -> list[Row]:
    return (await store.read_states(lane, limit))[1]


async def settle(store: Store, rows: Iterable[Row] = (), *, count: int = 0, **other: Any) -> set[str]:
    """The keys that were deleted."""
    acknowledged = list(rows)
    left = await store.settle(Settlement(acknowledged=list(acknowledged), **other), newly_acknowledged=count)
    keys = {(row.topic, row.key) for row in acknowledged if row.fact_id is None}
    assert left <= keys
    return {key for _, key in keys - left}


# What is pending.

ACTIVE, SUSPENDED = MembershipStatus.ACTIVE, MembershipStatus.SUSPENDED


@pytest.mark.parametrize(
    ("first", "then", "left"),
    [
        pytest.param((1, BULK), (2, BULK), (2, BULK, "suspended"), id="a newer state replaces the older"),
        pytest.param((2, BULK), (1, BULK), (2, BULK, "active"), id="an older one changes nothing"),
        pytest.param((1, BULK), (1, BULK), (1, BULK, "active"), id="the same version changes nothing"),
        pytest.param((1, BULK), (2, INTERACTIVE), (2, INTERACTIVE, "suspended"), id="a newer one may be more urgent"),
        pytest.param((1, INTERACTIVE), (2, BULK), (2, INTERACTIVE, "suspended"), id="or less, and stays as urgent"),
        pytest.param((2, BULK), (1, INTERACTIVE), (2, INTERACTIVE, "active"), id="an older one hurries the newer"),
        pytest.param((1, BULK), (1, INTERACTIVE), (1, INTERACTIVE, "active"), id="the same one hurries itself"),
        pytest.param((2, INTERACTIVE), (1, BULK), (2, INTERACTIVE, "active"), id="nothing becomes less urgent"),
    ],
)
async def test_a_key_has_one_row_with_its_newest_state_and_most_urgent_lane(
    outbox: Outbox, first: tuple[int, Lane], then: tuple[int, Lane], left: tuple[int, Lane, str]
) -> None:
    await publish(outbox, 1, first[0], lane=first[1])
    await publish(outbox, 2, lane=first[1])
    (before, other) = await outbox.pending()
    revision = await publish(outbox, 1, then[0], lane=then[1], status=SUSPENDED)
    assert str(revision) == f"{MEMBERSHIPS.name}:{key_of(1)}:1:{then[0]}"
    version, lane, status = left
    assert await outbox.pending() == [replace(before, version=version, lane=int(lane), status=status), other]


async def test_a_newer_epoch_outweighs_any_version(outbox: Outbox) -> None:
    await publish(outbox, 1, 7)
    await outbox.raise_epoch()
    revision = await publish(outbox, 1, 2)
    assert (revision.epoch, revision.version) == (2, 2)
    assert [(row.epoch, row.version) for row in await outbox.pending()] == [(2, 2)]


async def test_a_row_keeps_its_place_until_it_is_deleted_and_its_next_one_is_last(outbox: Outbox) -> None:
    for number in (1, 2):
        await publish(outbox, number)
    await publish(outbox, 1, 2)
    async with opened(outbox) as store:
        first, second = await read(store)
        assert [first.key, second.key] == [key_of(1), key_of(2)]
        assert await settle(store, [first]) == {key_of(1)}
        await publish(outbox, 1, 3)
        assert [row.key for row in await read(store)] == [key_of(2), key_of(1)]


@pytest.mark.parametrize(("version", "is_refused", "left"), [(3, False, 3), (2, False, 2), (1, True, 2)])
async def test_a_refused_row_is_read_no_more_until_the_same_state_or_a_newer_one_comes(
    outbox: Outbox,
    version: int,
    is_refused: bool,  # noqa: FBT001
    left: int,
) -> None:
    await publish(outbox, 1, 2)
    async with opened(outbox) as store:
        await settle(store, refused=[Refusal(row, "too large") for row in await read(store)])
        assert [row.is_refused for row in await outbox.pending()] == [True]
        assert await read(store) == []
        await publish(outbox, 1, version, status=SUSPENDED)
        (row,) = await outbox.pending()
        assert (row.is_refused, row.version) == (is_refused, left)
        assert row.status == ("active" if is_refused else "suspended")
        assert len(await read(store)) == (0 if is_refused else 1)


async def test_a_refusal_of_what_was_replaced_since_says_nothing_of_the_newer(outbox: Outbox) -> None:
    await publish(outbox, 1)
    async with opened(outbox) as store:
        sent = await read(store)
        await publish(outbox, 1, 2)
        await settle(store, refused=[Refusal(row, "too large") for row in sent])
        assert [row.version for row in await read(store)] == [2]


async def test_what_is_not_committed_is_not_there(outbox: Outbox) -> None:
    async with opened(outbox) as store:
        async with outbox.unit_of_work() as work:
            await publish_in(outbox, work, 1)
            assert await read(store) == []
        assert [row.key for row in await read(store)] == [key_of(1)]
        with pytest.raises(ZeroDivisionError):
            await fail(outbox, 2, ZeroDivisionError)
        assert [row.key for row in await read(store)] == [key_of(1)]


class RefusedError(DomainError):
    kind, code, title = Kind.REFUSED, "refused", "A refusal"


class RememberedError(RefusedError):
    remembered = True


@pytest.mark.parametrize(("error", "count"), [(RefusedError, 0), (RememberedError, 1)])
async def test_only_a_refusal_that_must_leave_a_trace_is_committed(
    outbox: Outbox, error: type[DomainError], count: int
) -> None:
    with pytest.raises(error):
        await fail(outbox, 1, error)
    assert len(await outbox.pending()) == count


async def test_a_topic_takes_what_it_carries_and_no_event_that_is_too_large(outbox: Outbox) -> None:
    async with outbox.unit_of_work() as work:
        for topic in (SUBSCRIPTIONS, BY_NAME["auth.sessions.v1"]):
            with pytest.raises(ValueError, match="carr"):
                await outbox.publish_state(
                    work, topic, grant(1), company_id=COMPANY, version=1, occurred_at=NOW, lane=INTERACTIVE
                )
        with pytest.raises(EventTooLargeError):
            await outbox.publish_state(
                work, MEMBERSHIPS, grant(1, bytes_more=300_000), company_id=COMPANY, version=1, occurred_at=NOW
            )
    assert await outbox.pending() == []


# Writers beside one another.


@pytest.mark.parametrize(("held", "other"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("commits", [True, False])
async def test_a_writer_waits_for_another_of_the_same_key(
    outbox: Outbox,
    held: int,
    other: int,
    commits: bool,  # noqa: FBT001
) -> None:
    waiting: list[asyncio.Task[Revision]] = []

    async def hold() -> None:
        async with outbox.unit_of_work() as work:
            await publish_in(outbox, work, 1, held)
            waiting.append(asyncio.create_task(publish(outbox, 1, other)))
            await wait_until(outbox.waiting, lambda n: n == 1, describe="the second writer waits")
            if not commits:
                raise ZeroDivisionError

    with nullcontext() if commits else pytest.raises(ZeroDivisionError):
        await hold()
    await waiting[0]
    assert [row.version for row in await outbox.pending()] == [max(held, other) if commits else other]


async def test_of_concurrent_writers_the_newest_version_stays(outbox: Outbox) -> None:
    versions = list(range(1, 31))
    random.Random(4).shuffle(versions)  # noqa: S311 - an order, not a secret
    await asyncio.gather(*(publish(outbox, 1, version) for version in versions))
    (row,) = await outbox.pending()
    assert row.version == 30


# Reading.


async def test_states_are_read_by_lane_in_the_order_they_came(outbox: Outbox) -> None:
    for number in (5, 3, 4, 1, 2):
        await publish(outbox, number, lane=BULK if number % 2 else INTERACTIVE)
    async with opened(outbox) as store:
        assert [row.key for row in await read(store)] == [key_of(4), key_of(2)]
        assert [row.key for row in await read(store, BULK)] == [key_of(5), key_of(3), key_of(1)]
        assert [row.key for row in await read(store, BULK, limit=2)] == [key_of(5), key_of(3)]
        (row, *_) = await read(store)
        assert (row.topic, row.epoch, row.version, row.fact_id) == (MEMBERSHIPS.name, 1, 1, None)
        assert row.headers == (("type", b"auth.grant-changed.v1"),)
        assert json.loads(row.value)["data"]["user_id"] == str(user(4))


async def test_facts_are_read_in_the_order_they_were_written(outbox: Outbox) -> None:
    companies = [CompanyId(new_id()) for _ in range(2)]
    sent = [await publish_trial(outbox, companies[number % 2], number + 1) for number in range(6)]
    async with opened(outbox) as store:
        rows = await store.read_facts(100)
        assert [json.loads(row.value)["event_id"] for row in rows] == [str(event_id) for event_id in sent]
        assert [row.key for row in rows[:2]] == [str(company) for company in companies]
        assert (rows[0].topic, rows[0].epoch, rows[0].version) == (SUBSCRIPTIONS.name, 0, 0)
        assert rows[0].headers == (("type", b"checkout.trial-started.v1"),)
        assert [row.fact_id for row in rows] == sorted(row.fact_id or 0 for row in rows)
        assert len(await store.read_facts(4)) == 4
        await settle(store, rows[1:3], refused=[Refusal(rows[0], "too large")])
        assert [row.fact_id for row in await store.read_facts(100)] == [row.fact_id for row in rows[3:]]
        assert (await store.backlog()).refused == 1


async def test_what_was_committed_before_the_time_that_is_read_is_read(outbox: Outbox) -> None:
    committed: dict[str, datetime] = {}

    async def write(numbers: Iterable[int]) -> None:
        for number in numbers:
            await publish(outbox, number)
            committed[key_of(number)] = await outbox.now()

    async with opened(outbox) as store:
        writers = [asyncio.create_task(write(range(start, 60, 3))) for start in range(3)]
        reads = []
        while not all(writer.done() for writer in writers):
            reads.append(await store.read_states(INTERACTIVE, 1000))
        await asyncio.gather(*writers)
        reads.append(await store.read_states(INTERACTIVE, 1000))
    assert len(reads) > 3
    for read_at, rows in reads:
        seen = {row.key for row in rows}
        assert {key for key, at in committed.items() if at <= read_at} <= seen
    assert [read_at for read_at, _ in reads] == sorted(read_at for read_at, _ in reads)
    assert len(reads[-1][1]) == 60


async def test_what_lies_behind_a_position_is_read_alone(outbox: Outbox) -> None:
    for number in (1, 2, 3):
        await publish(outbox, number)
    await publish(outbox, 4, lane=BULK)
    async with opened(outbox) as store:
        first, second, third = await read(store)
        assert [row.position for row in (first, second, third)] == [row.position for row in await outbox.pending()][:3]
        await publish(outbox, 1, 2)
        _, found = await store.read_states(INTERACTIVE, 100, behind=first.position)
        assert found == [second, third]
        _, found = await store.read_states(INTERACTIVE, 1, behind=first.position)
        assert found == [second]
        assert (await store.read_states(INTERACTIVE, 100, behind=third.position))[1] == []


# Settling.


async def test_only_what_is_still_what_was_sent_is_deleted(outbox: Outbox) -> None:
    for number in (1, 2, 3):
        await publish(outbox, number, 2)
    async with opened(outbox) as store:
        sent = await read(store)
        await publish(outbox, 2, 3)
        (unchanged, newer, third) = sent
        older = third._replace(version=1)
        of_another_epoch = third._replace(epoch=2)
        unknown = third._replace(key=key_of(9))
        assert await settle(store, [unchanged, newer, older, of_another_epoch, unknown]) == {key_of(1)}
        assert [(row.key, row.version) for row in await read(store)] == [(key_of(2), 3), (key_of(3), 2)]
        assert await settle(store, [unchanged]) == set()


async def test_a_row_that_a_writer_holds_is_left_and_stops_nobody(outbox: Outbox) -> None:
    for number in (1, 2):
        await publish(outbox, number)
    async with opened(outbox) as store:
        sent = await read(store)
        async with outbox.unit_of_work() as work:
            # It changes nothing, and holds the row all the same.
            await publish_in(outbox, work, 1)
            assert await settle(store, sent) == {key_of(2)}
        assert await settle(store, sent) == {key_of(1)}


async def test_what_is_newly_acknowledged_is_counted(outbox: Outbox) -> None:
    async with opened(outbox) as store:
        known = await store.publisher()
        assert (known.epoch, known.epoch_complete, known.publish_counter) == (1, True, 0)
        await settle(store, count=3)
        await settle(store)
        await settle(store, count=4)
        assert (await store.publisher()).publish_counter == 7


def progress(partition: int, acknowledged: int, checked: int, topic_id: str = "A" * 22) -> Progress:
    return Progress(MEMBERSHIPS.name, partition, topic_id, acknowledged, checked)


async def stored_progress(store: Store) -> list[tuple[int, str, int, int, bool]]:
    return sorted(
        (known.partition, known.topic_id[0], known.acknowledged_offset, known.checked_offset, known.lost)
        for known in await store.progress()
    )


async def test_progress_goes_forward_only_and_in_the_same_topic_only(outbox: Outbox) -> None:
    async with opened(outbox) as store:
        await settle(store, moved=[progress(0, 10, 5), progress(1, 4, 4)])
        await settle(store, moved=[progress(0, 8, 9), progress(1, 7, 7, "B" * 22), progress(2, 0, 0)])
        assert await stored_progress(store) == [(0, "A", 10, 9, False), (1, "A", 4, 4, False), (2, "A", 0, 0, False)]


async def test_a_lost_topic_stays_lost(outbox: Outbox) -> None:
    async with opened(outbox) as store:
        other = Progress("auth.sessions.v1", 0, "A" * 22, 1, 1)
        await settle(store, moved=[progress(0, 1, 1), progress(1, 1, 1), other])
        await store.lose([MEMBERSHIPS.name, "auth.permissions.v1"])
        await settle(store, moved=[progress(0, 2, 2)])
        found = {(known.topic, known.partition): known.lost for known in await store.progress()}
        assert found == {(MEMBERSHIPS.name, 0): True, (MEMBERSHIPS.name, 1): True, ("auth.sessions.v1", 0): False}


async def test_a_topic_that_was_published_anew_is_what_its_log_is_now(outbox: Outbox) -> None:
    async with opened(outbox) as store:
        await settle(store, moved=[progress(0, 10, 10), progress(1, 5, 5)])
        await store.lose([MEMBERSHIPS.name])
        await store.recover([progress(0, 3, 2, "B" * 22), progress(2, 1, 0, "B" * 22)])
        assert await stored_progress(store) == [(0, "B", 3, 2, False), (1, "A", 5, 5, True), (2, "B", 1, 0, False)]


# A restored database.


async def test_the_server_that_is_published_from_is_remembered(outbox: Outbox) -> None:
    async with opened(outbox) as store, opened(outbox) as other:
        server = await store.server()
        assert await other.server() == server
        assert server.timeline == 1
        assert (await store.publisher()).server is None
        await store.adopt_server(server)
        assert (await other.publisher()).server == server


async def test_a_restore_is_asked_for_begun_under_a_new_epoch_and_finished(outbox: Outbox) -> None:
    async with opened(outbox) as store:
        server = await store.server()
        await settle(store, count=5)
        await store.refuse("the counter is behind")
        known = await store.publisher()
        assert (known.refusal, known.restore) == ("the counter is behind", None)
        await outbox.request_restore()
        asked = (await store.publisher()).restore
        assert asked is not None
        # Begun, and begun again by the next leader.
        await store.begin_epoch(3, replace(server, timeline=2))
        await store.begin_epoch(4, server)
        begun = await store.publisher()
        assert (begun.epoch, begun.epoch_complete, begun.publish_counter) == (4, False, 0)
        assert (begun.refusal, begun.restore, begun.server) == (None, asked, server)
        assert (await publish(outbox, 1)).epoch == 4
        await store.note_restore(republished=7, withdrawn=2)
        await outbox.request_restore()
        await store.complete_epoch()
        done = await store.publisher()
        assert (done.epoch, done.epoch_complete) == (4, True)
        # What was asked for meanwhile is still to be done.
        assert done.restore is not None
        assert done.restore > asked
        assert await outbox.restores() == [(1, 4, 7, 2, True), (None, None, 0, 0, False)]


async def test_the_backlog_is_what_is_pending_and_since_when(outbox: Outbox) -> None:
    async with opened(outbox) as store:
        empty = await store.backlog()
        assert (empty.depth, empty.refused, empty.oldest_at) == (0, 0, None)
        before = await outbox.now()
        await publish(outbox, 1)
        between = await outbox.now()
        await publish(outbox, 2, lane=BULK)
        await publish_trial(outbox, COMPANY, 1)
        await publish(outbox, 1, 2)
        found = await store.backlog()
        assert (found.depth, found.refused) == (3, 0)
        assert found.oldest_at is not None
        # A newer state does not make a key's waiting shorter.
        assert before <= found.oldest_at <= between
        await settle(store, refused=[Refusal(row, "too large") for row in await read(store)])
        found = await store.backlog()
        assert (found.depth, found.refused) == (2, 1)
        assert found.oldest_at is not None
        assert found.oldest_at >= between


# Being told, and leading.


async def test_a_commit_that_wrote_is_told_to_who_listens_and_nothing_else_is(outbox: Outbox) -> None:
    told = asyncio.Event()
    async with opened(outbox) as store:
        await store.listen(told.set)

        async def is_told() -> bool:
            await wait_until(lambda: asyncio.sleep(0, told.is_set()), bool, describe="it is told")
            told.clear()
            return True

        async with outbox.unit_of_work() as work:
            await publish_in(outbox, work, 1)
            await store.prove()
            assert not told.is_set()
        assert await is_told()
        with pytest.raises(ZeroDivisionError):
            await fail(outbox, 1, ZeroDivisionError, version=2)
        async with outbox.unit_of_work():
            pass
        await store.prove()
        assert not told.is_set()
        await publish_trial(outbox, COMPANY, 1)
        assert await is_told()
        # Also for what changed nothing, so that a refused row is tried again at once.
        await publish(outbox, 1)
        assert await is_told()


async def test_one_leads_until_its_connection_ends(outbox: Outbox) -> None:
    first, second = await outbox.open_store(), await outbox.open_store()
    try:
        assert await first.try_lead()
        assert not await second.try_lead()
        assert await first.try_lead()
        first.terminate()
        await wait_until(second.try_lead, bool, describe="the lock is free")
    finally:
        first.terminate()
        second.terminate()


async def test_a_store_whose_connection_is_gone_says_so_whatever_it_is_asked(outbox: Outbox) -> None:
    store = await outbox.open_store()
    await store.prove()
    await store.prove_if_old()
    store.terminate()
    asked: list[Callable[[], Any]] = [
        store.try_lead,
        lambda: store.listen(lambda: None),
        store.prove,
        lambda: store.read_states(INTERACTIVE, 1),
        lambda: store.read_facts(1),
        lambda: settle(store),
        store.publisher,
        store.progress,
        lambda: store.lose(["a"]),
        store.backlog,
    ]
    for ask in asked:
        with pytest.raises(StoreLostError):
            await ask()


# What only a simulation can do to its database.

TOPIC = MEMBERSHIPS.name
START = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)


class World:
    """A simulated loop with a database, writers and relays on it."""

    def __init__(self, seed: int) -> None:
        self.loop = SimulatedLoop(random.Random(seed))  # noqa: S311 - a schedule, no secrets
        self.database = SimulatedDatabase(
            self.loop,
            random.Random(seed),  # noqa: S311 - delays, no secrets
            clock=lambda: START + timedelta(seconds=self.loop.time()),
        )
        self.client = self.loop.process("client")

    def run(self, history: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(history)

    async def write(self, number: int, version: int, *, open_seconds: float = 0.0) -> None:
        """As an operation does: the row under its lock, published with it."""
        async with self.database.unit_of_work() as work:
            await work.lock(TOPIC, key_of(number))
            row = MembershipRow(COMPANY, user(number), ACTIVE, version=version)
            await work.write(row)
            await work.publish_row(row, occurred_at=START)
            await passing(open_seconds)

    def versions(self, number: int) -> tuple[int | None, int | None]:
        """What is committed of a key: the version of its row, and the one that is pending."""
        row = self.database.aggregate(TOPIC, key_of(number))
        pending = {state.key: state.version for state in self.database.states()}
        return None if row is None else row.version, pending.get(key_of(number))


async def passing(seconds: float) -> None:
    """Virtual time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().create_future()


@pytest.fixture(params=range(4))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param)
    with closing(made.loop):
        yield made
        assert made.loop.exceptions == []


def test_a_row_and_what_is_published_of_it_are_committed_together_whenever_the_writer_is_killed() -> None:
    seen = set()
    for steps in range(1, 80):
        world = World(steps)

        async def history(world: World = world, steps: int = steps) -> None:
            await world.write(1, 1)
            world.client.start(world.write(1, 2))
            world.client.kill_after(steps)
            await passing(1.0)
            seen.add(world.versions(1))
            # Its locks are free, whatever it was doing.
            await world.write(1, 3)
            assert world.versions(1) == (3, 3)

        with closing(world.loop):
            world.run(history())
    assert seen == {(1, 1), (2, 2)}


def test_a_commit_may_be_made_though_its_client_never_hears_of_it() -> None:
    outcomes = set()
    for seed in range(80):
        world = World(seed)

        async def history(world: World = world, seed: int = seed) -> tuple[bool, tuple[int | None, int | None]]:
            writer = world.client.start(world.write(1, 1))
            # Around the time a write takes.
            await passing(0.012 + 0.0004 * (seed % 40))
            world.database.go_down(1.0)
            try:
                await writer
            except DatabaseUnavailableError:
                return False, world.versions(1)
            return True, world.versions(1)

        with closing(world.loop):
            outcomes.add(world.run(history()))
    assert outcomes == {(True, (1, 1)), (False, (1, 1)), (False, (None, None))}


def test_a_leader_that_is_frozen_leads_no_more_and_deletes_nothing_when_it_wakes(world: World) -> None:
    async def lead() -> str:
        store = await world.database.open_store()
        assert await store.try_lead()
        _, sent = await store.read_states(INTERACTIVE, 10)
        world.client.freeze()
        await asyncio.sleep(0)
        try:
            await settle(store, sent, count=1)
        except StoreLostError:
            return "lost"
        return "settled"

    async def history() -> None:
        await world.write(1, 1)
        leader = world.client.start(lead())
        await passing(1.0)
        other = await world.database.open_store()
        assert not await other.try_lead()
        await passing(3.5)
        assert not await other.try_lead()
        await passing(1.5)
        assert await other.try_lead()
        world.client.thaw()
        assert await leader == "lost"
        assert world.versions(1) == (1, 1)
        assert (await other.publisher()).publish_counter == 0

    world.run(history())


def test_a_writer_that_is_frozen_keeps_its_rows_for_a_while_and_then_loses_its_transaction(world: World) -> None:
    async def history() -> None:
        writer = world.client.start(world.write(1, 1, open_seconds=0.1))
        await passing(0.05)
        world.client.freeze()
        with pytest.raises(DatabaseUnavailableError):
            await world.write(1, 9)
        assert world.loop.time() == pytest.approx(4.05, abs=0.1)
        await world.write(2, 1)
        await passing(12.0)
        await world.write(1, 2)
        world.client.thaw()
        with pytest.raises(DatabaseUnavailableError):
            await writer
        assert world.versions(1) == (2, 2)

    world.run(history())


def test_who_is_cut_off_is_not_heard_until_it_is_over(world: World) -> None:
    async def lead() -> None:
        store = await world.database.open_store()
        assert await store.try_lead()
        while True:
            await store.prove()
            await passing(1.0)

    async def history() -> None:
        leader = world.client.start(lead())
        await passing(3.0)
        world.database.cut_off(world.client, 12.0)
        other = await world.database.open_store()
        await passing(3.0)
        assert not await other.try_lead()
        await passing(4.0)
        assert await other.try_lead()
        with pytest.raises(StoreLostError):
            await leader
        # As long as a query may take, from the first that was not answered.
        assert 13.0 < world.loop.time() < 14.5

    world.run(history())


def test_a_server_that_is_down_answers_nobody_and_forgets_nothing_that_was_committed(world: World) -> None:
    async def history() -> None:
        await world.write(1, 1)
        store = await world.database.open_store()
        assert await store.try_lead()
        writer = world.client.start(world.write(2, 1, open_seconds=0.5))
        await passing(0.2)
        world.database.go_down(60.0)
        for refused in (store.prove, world.database.open_store):
            with pytest.raises(StoreLostError):
                await refused()
        for unit_of_work in (world.write(3, 1), writer):
            with pytest.raises(DatabaseUnavailableError):
                await unit_of_work
        assert world.loop.time() < 60.0
        await passing(60.0)
        assert [world.versions(number) for number in (1, 2, 3)] == [(1, 1), (None, None), (None, None)]
        again = await world.database.open_store()
        assert await again.try_lead()
        await world.write(2, 1)

    world.run(history())


def test_a_restored_database_is_as_its_backup(world: World) -> None:
    async def history() -> None:
        await world.write(1, 1)
        store = await world.database.open_store()
        assert await store.try_lead()
        await settle(store, await read(store), count=1, moved=[progress(0, 5, 5)])
        backup = world.database.snapshot()
        await world.write(1, 2)
        await world.write(2, 1)
        await settle(store, await read(store), count=2, moved=[progress(0, 7, 7)])
        changes: list[tuple[str, int | None]] = []
        world.database.changed = lambda subject, row: changes.append((subject[1], None if row is None else row.version))
        world.database.restore(backup, tells=True)
        assert changes == [(key_of(1), 1), (key_of(2), None)]
        assert [world.versions(number) for number in (1, 2)] == [(1, None), (None, None)]
        with pytest.raises(StoreLostError):
            await store.prove()
        again = await world.database.open_store()
        assert await again.try_lead()
        assert (await again.publisher()).publish_counter == 1
        assert await stored_progress(again) == [(0, "A", 5, 5, False)]
        assert world.database.snapshot().server != backup.server
        world.database.restore(backup, tells=False)
        assert world.database.snapshot() == backup

    world.run(history())


def test_rows_are_found_published_again_and_withdrawn_as_a_relay_asks(world: World) -> None:
    source = SimulatedSource(MEMBERSHIPS)

    async def history() -> None:
        for number in (2, 1, 3):
            await world.write(number, 4)
        store = await world.database.open_store()
        await settle(store, await read(store))
        assert world.versions(1) == (4, None)
        async with world.database.unit_of_work() as work:
            assert await source.keys(work, after=None, limit=2) == [key_of(1), key_of(2)]
            assert await source.keys(work, after=key_of(2), limit=2) == [key_of(3)]
            assert str(await source.republish(work, key_of(1), now=START)) == f"{TOPIC}:{key_of(1)}:1:4"
            assert str(await source.republish(work, key_of(2), now=START, above=2)) == f"{TOPIC}:{key_of(2)}:1:5"
            assert str(await source.republish(work, key_of(3), now=START, above=8)) == f"{TOPIC}:{key_of(3)}:1:9"
            assert await source.republish(work, key_of(9), now=START) is None
            assert str(await source.withdraw(work, key_of(9), now=START, above=6)) == f"{TOPIC}:{key_of(9)}:1:7"
        assert [world.versions(number) for number in (1, 2, 3, 9)] == [(4, 4), (5, 5), (9, 9), (7, 7)]
        withdrawn = world.database.aggregate(TOPIC, key_of(9))
        assert isinstance(withdrawn, MembershipRow)
        assert withdrawn.status == "removed"

    world.run(history())


def test_the_same_seed_is_the_same_history() -> None:
    def trace(seed: int) -> list[tuple[float, str, str]]:
        world = World(seed)
        world.loop.trace = []

        async def history() -> None:
            writers = [world.loop.process(f"writer {number}") for number in range(4)]
            tasks = [writer.start(world.write(version % 2, version + 1)) for version, writer in enumerate(writers)]
            writers[0].kill_after(5)
            await asyncio.wait(tasks[1:])

        with closing(world.loop):
            world.run(history())
        return world.loop.trace

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)
