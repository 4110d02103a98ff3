"""A job that no row tells of is done once for each window, by whichever instance comes to it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from alembic.migration import MigrationContext
from alembic.operations import Operations
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.jobs import Window, create_job_runs, next_window
from contracts.identifiers import CompanyId, new_id
from infra.postgres.database import Database, DatabaseUnavailableError
from services.finance.app import service
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.integration.test_row_security import holes

HOUR = timedelta(hours=1)
NOON = datetime(2026, 5, 21, 12, tzinfo=UTC)
#: Room for every digest there is of a company, and no rule that each is sent once.
EFFECTS = "create table digests (company_id uuid not null, begins_at timestamptz, ends_at timestamptz not null)"


@dataclass
class Instances:
    """Two instances of a service on one database."""

    one: Database
    other: Database
    administrator_url: str
    owner_url: str

    async def digests(self, company_id: CompanyId) -> list[tuple[datetime | None, datetime]]:
        async with self.one.unit_of_work() as work:
            found = text("select begins_at, ends_at from digests where company_id = :company_id order by ends_at")
            return [(row[0], row[1]) for row in await work.execute(found, {"company_id": company_id})]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def instances(runtime: Runtime) -> AsyncIterator[Instances]:
    described = await service_database(runtime, service)

    def create(connection: Connection) -> None:
        op = Operations(MigrationContext.configure(connection))
        create_job_runs(op)
        op.execute(EFFECTS)

    owner_url = described.owner_url(runtime.administrator_url)
    engine = create_async_engine(owner_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        await connection.run_sync(create)
    await engine.dispose()
    url = described.url(runtime.administrator_url)
    one, other = (Database(url, application_name="test") for _ in range(2))
    yield Instances(one, other, runtime.administrator_url, owner_url)
    await one.close()
    await other.close()


async def send_digest(database: Database, company_id: CompanyId, now: datetime) -> Window | None:
    """A job as a module writes it."""
    async with database.unit_of_work(company_id=company_id) as work:
        window = await next_window(work, company_id, "send_digest", every=HOUR, now=now)
        if window is not None:
            sent = {"company_id": company_id, "begins_at": window.begins_at, "ends_at": window.ends_at}
            await work.execute(text("insert into digests values (:company_id, :begins_at, :ends_at)"), sent)
        return window


async def test_what_was_done_is_fenced_by_company(instances: Instances) -> None:
    assert set(await holes(instances.owner_url)) == {"digests"}


async def test_of_instances_that_come_at_once_one_does_it(instances: Instances) -> None:
    company = CompanyId(new_id())
    for now in (NOON, NOON + HOUR):
        databases = [instances.one, instances.other] * 4
        came = await asyncio.gather(*(send_digest(database, company, now) for database in databases))
        assert len([window for window in came if window is not None]) == 1
    assert await instances.digests(company) == [(None, NOON), (NOON, NOON + HOUR)]


@asynccontextmanager
async def administrator(instances: Instances) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(instances.administrator_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("last", [NOON - HOUR, None])
async def test_what_an_instance_that_died_was_at_another_does(instances: Instances, last: datetime | None) -> None:
    company = CompanyId(new_id())
    if last is not None:
        await send_digest(instances.one, company, last)
    before = await instances.digests(company)

    async def dies() -> None:
        async with instances.one.unit_of_work(company_id=company) as work:
            window = await next_window(work, company, "send_digest", every=HOUR, now=NOON)
            assert window == Window(last, NOON)
            backend = await work.scalar(select(func.pg_backend_pid()))
            async with administrator(instances) as connection:
                assert await connection.fetchval("select pg_terminate_backend($1, 5000)", backend)
            await work.execute(text("select 1"))

    with pytest.raises(DatabaseUnavailableError):
        await dies()
    assert await instances.digests(company) == before
    assert await send_digest(instances.other, company, NOON) is not None
    assert len(await instances.digests(company)) == len(before) + 1


async def test_an_effect_that_fails_leaves_its_window_to_be_done(instances: Instances) -> None:
    company = CompanyId(new_id())

    async def fails() -> None:
        async with instances.one.unit_of_work(company_id=company) as work:
            assert await next_window(work, company, "send_digest", every=HOUR, now=NOON) is not None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await send_digest(instances.one, company, NOON) == Window(None, NOON)


async def test_a_window_ends_when_its_end_has_come_and_not_before(instances: Instances) -> None:
    company = CompanyId(new_id())
    instant = timedelta(microseconds=1)
    assert await send_digest(instances.one, company, NOON - instant) == Window(None, NOON - HOUR)
    assert await send_digest(instances.one, company, NOON - instant) is None
    assert await send_digest(instances.one, company, NOON) == Window(NOON - HOUR, NOON)
    # Nobody ran for a while: what was left out is done at once.
    assert await send_digest(instances.one, company, NOON + 3 * HOUR + instant) == Window(NOON, NOON + 3 * HOUR)
    # A clock that is behind.
    assert await send_digest(instances.other, company, NOON + HOUR) is None


@given(minutes=st.lists(st.integers(0, 10_000), min_size=2, max_size=10))
async def test_windows_adjoin_whenever_anybody_looks(instances: Instances, minutes: Sequence[int]) -> None:
    company, done = CompanyId(new_id()), list[Any]()
    async with instances.one.unit_of_work(company_id=company) as work:
        for minute in minutes:
            now = NOON + timedelta(minutes=minute)
            window = await next_window(work, company, "any", every=HOUR, now=now)
            if window is not None:
                assert now - HOUR < window.ends_at <= now
                done.append(window)
        await work.rollback()
    assert done[0].begins_at is None
    assert [window.begins_at for window in done[1:]] == [window.ends_at for window in done[:-1]]
    assert all(window.begins_at < window.ends_at for window in done[1:])
