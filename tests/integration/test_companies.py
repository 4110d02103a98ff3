"""Which companies a fenced database has rows of, and work for one after another."""

from typing import Any

import asyncpg
import pytest
from sqlalchemy import select

import infra.postgres.companies
from contracts.identifiers import CompanyId, new_id
from infra.clock import utc_now
from infra.postgres.companies import enter_company, every_company, note_companies_of
from infra.postgres.database import Database
from infra.postgres.row_security import isolate_by_company
from services.promoter.app import service
from services.promoter.artists.tables import Artist
from tests.harness.runtime import Runtime
from tests.harness.services import service_database


def artist_of(company_id: CompanyId) -> Artist:
    return Artist(
        id=new_id(), company_id=company_id, stage_name="x", version=1, created_by=new_id(), created_at=utc_now()
    )


class Statements(list[str]):
    """What an Alembic version would run."""

    def execute(self, statement: str) -> None:
        self.append(statement)


async def test_companies_are_known_with_their_first_row_and_found_page_by_page(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.postgres.companies, "_PAGE_ROWS", 2)
    created = await service_database(runtime, service)
    database = Database(created.url(runtime.administrator_url), application_name="test")
    companies = [CompanyId(new_id()) for _ in range(5)]
    try:
        for company_id in (*companies, companies[0]):
            async with database.unit_of_work(company_id=company_id) as work:
                work.add(artist_of(company_id))
        assert [company_id async for company_id in every_company(database)] == companies
    finally:
        await database.close()


async def test_a_table_with_rows_tells_of_their_companies_and_is_fenced_as_before(runtime: Runtime) -> None:
    created = await service_database(runtime, service)
    company_id = CompanyId(new_id())
    statements = Statements()
    isolate_by_company(statements, "older")
    note_companies_of(statements, "older")
    fence: Any
    owner = await asyncpg.connect(created.owner_url(runtime.administrator_url))
    try:
        await owner.execute("create table older (company_id uuid not null)")
        await owner.execute("insert into older select $1 from generate_series(1, 3)", company_id)
        for statement in statements:
            await owner.execute(statement)
        assert [row["company_id"] for row in await owner.fetch("select * from companies")] == [company_id]
        assert await owner.fetchval("select count(*) from older") == 0, "its owner is fenced again"
        fence = await owner.fetchrow("select relrowsecurity, relforcerowsecurity from pg_class where relname = 'older'")
    finally:
        await owner.close()
    assert tuple(fence) == (True, True)


async def test_who_goes_from_company_to_company_writes_each_in_its_own(runtime: Runtime) -> None:
    created = await service_database(runtime, service)
    database = Database(created.url(runtime.administrator_url), application_name="test")
    one, other = CompanyId(new_id()), CompanyId(new_id())
    try:
        async with database.unit_of_work() as work:
            work.sync_session.autoflush = False
            for company_id in (one, other):
                await enter_company(work, company_id)
                work.add(artist_of(company_id))
        async with database.unit_of_work() as work:
            for company_id in (one, other):
                await enter_company(work, company_id)
                assert list(await work.scalars(select(Artist.company_id))) == [company_id]
        async with database.unit_of_work() as work:
            assert list(await work.scalars(select(Artist.company_id))) == [], "it ends with its transaction"
    finally:
        await database.close()
