"""The second fence: every table of a module shows and takes the rows of one company, whatever the code forgot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from chassis.service import Service
from cli.registry import load, service_names
from contracts.errors import DomainError, Kind
from contracts.identifiers import CompanyId, new_id
from infra.clock import utc_now
from infra.postgres.database import Database
from infra.postgres.provision import ServiceDatabase
from infra.postgres.row_security import COMPANY_SETTING
from services.finance.app import service as finance
from services.finance.expenses.tables import Expense
from tests.harness.runtime import Runtime
from tests.harness.services import service_database

#: What a module's database holds that is nobody's: events on their way, which were applied, ids of companies.
UNFENCED: Final = {
    "companies",
    "inbox",
    "outbox_facts",
    "outbox_partitions",
    "outbox_publisher",
    "outbox_restores",
    "outbox_states",
}
FENCE: Final = f"(company_id = (NULLIF(current_setting('{COMPANY_SETTING}'::text, true), ''::text))::uuid)"

MODULES: Final = [name for name, service in load(service_names()).items() if service.manifest.kind != "system"]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def holes(url: str) -> dict[str, str]:
    """What is missing of the fence of each table, for tables that lack something."""
    async with connected(url) as connection:
        tables = await connection.fetch(
            """
            select relname, relrowsecurity, relforcerowsecurity,
                exists (
                    select from pg_attribute
                    where attrelid = pg_class.oid and attname = 'company_id' and attnotnull and not attisdropped
                ) as has_company
            from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'm', 'f')
            """
        )
        policies = await connection.fetch("select * from pg_policies where schemaname = 'public'")
    found = {}
    for table in tables:
        name = table["relname"]
        if name in UNFENCED:
            continue
        own = [policy for policy in policies if policy["tablename"] == name]
        missing = [
            what
            for holds, what in (
                (table["has_company"], "company_id"),
                (table["relrowsecurity"], "row security"),
                (table["relforcerowsecurity"], "row security for its owner"),
                (own, "a policy"),
                # Policies add up: a second, permissive one would open what the first closes.
                (len(own) < 2, "only one policy"),
                (all(policy["cmd"] == "ALL" for policy in own), "a policy for every command"),
                (all(policy["roles"] == ["public"] for policy in own), "a policy for every role"),
                (all(policy["qual"] == FENCE for policy in own), "the fence for what is seen"),
                (all(policy["with_check"] == FENCE for policy in own), "the fence for what is written"),
            )
            if not holds
        ]
        if missing:
            found[name] = ", ".join(missing)
    return found


@pytest.mark.parametrize("name", MODULES)
async def test_every_table_of_a_module_is_fenced(runtime: Runtime, name: str) -> None:
    service: Service[Any] = load([name])[name]
    database = await service_database(runtime, service)
    assert await holes(database.owner_url(runtime.administrator_url)) == {}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def created(runtime: Runtime) -> ServiceDatabase:
    return await service_database(runtime, finance)


@pytest.mark.parametrize(
    ("made", "missing"),
    [
        ("create table planted (company_id uuid not null)", "row security"),
        ("create table planted (expense_id uuid not null)", "company_id"),
        ("create table planted (company_id uuid)", "company_id"),
        (
            "create table planted (company_id uuid not null); alter table planted enable row level security",
            "a policy",
        ),
        (
            """
            create table planted (company_id uuid not null); alter table planted enable row level security;
            create policy company on planted using (true)
            """,
            "the fence for what is seen",
        ),
        ("create materialized view planted as select company_id from expenses", "row security"),
    ],
)
async def test_a_table_that_is_not_fenced_is_found(
    runtime: Runtime, created: ServiceDatabase, made: str, missing: str
) -> None:
    url = created.owner_url(runtime.administrator_url)
    async with connected(url) as connection:
        await connection.execute(made)
        try:
            assert missing in (await holes(url))["planted"]
        finally:
            kind = "materialized view" if "view" in made else "table"
            await connection.execute(f"drop {kind} planted")


async def test_the_application_role_cannot_step_over_it(runtime: Runtime, created: ServiceDatabase) -> None:
    async with connected(created.url(runtime.administrator_url)) as connection:
        role = await connection.fetchrow(
            "select rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = current_user"
        )
        assert not any(role)
        assert (
            await connection.fetchval("select count(*) from pg_auth_members where member = current_user::regrole") == 0
        )
        owned = "select count(*) from pg_class where relowner = current_user::regrole"
        assert await connection.fetchval(owned) == 0
        for statement in ("alter table expenses disable row level security", "drop policy company on expenses"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        # For a role that may not, switching it off is an error and not a way around.
        await connection.execute("set row_security = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select * from expenses")


# What a unit of work sees and may do.


@pytest_asyncio.fixture(loop_scope="session")
async def database(runtime: Runtime, created: ServiceDatabase) -> AsyncIterator[Database]:
    """With one connection, which every unit of work gets in turn."""
    opened = Database(created.url(runtime.administrator_url), application_name="test", connections_max=1)
    yield opened
    await opened.close()


def row(company_id: UUID) -> dict[str, Any]:
    return {
        "id": new_id(),
        "company_id": company_id,
        "description": "Stage",
        "amount_minor": 1,
        "currency": "USD",
        "incurred_on": date(2026, 5, 21),
        "created_by": new_id(),
        "created_at": utc_now(),
    }


async def count(database: Database, company_id: CompanyId | None) -> int:
    async with database.unit_of_work(company_id=company_id) as work:
        return await work.scalar(select(func.count()).select_from(Expense)) or 0


async def company_with_a_row(database: Database) -> CompanyId:
    company_id = CompanyId(new_id())
    async with database.unit_of_work(company_id=company_id) as work:
        await work.execute(insert(Expense).values(**row(company_id)))
    return company_id


async def test_a_company_sees_its_own_and_nothing_else(database: Database) -> None:
    one, other = await company_with_a_row(database), await company_with_a_row(database)
    async with database.unit_of_work(company_id=one) as work:
        assert set(await work.scalars(select(Expense.company_id))) == {one}
        theirs = Expense.company_id == other
        for change in (update(Expense).where(theirs).values(description="Theirs"), delete(Expense).where(theirs)):
            assert list(await work.scalars(change.returning(Expense.id))) == []
    assert await count(database, other) == 1


@pytest.mark.parametrize("asks", ["without a company", "as another company"])
async def test_nothing_is_written_outside_of_the_fence(database: Database, asks: str) -> None:
    company_id = CompanyId(new_id())
    own = None if asks == "without a company" else CompanyId(new_id())
    with pytest.raises(DBAPIError, match="row-level security"):
        async with database.unit_of_work(company_id=own) as work:
            await work.execute(insert(Expense).values(**row(company_id)))
    assert await count(database, company_id) == 0


async def test_a_row_cannot_be_given_to_another_company(database: Database) -> None:
    one, other = await company_with_a_row(database), CompanyId(new_id())
    with pytest.raises(DBAPIError, match="row-level security"):
        async with database.unit_of_work(company_id=one) as work:
            await work.execute(update(Expense).values(company_id=other))
    assert (await count(database, one), await count(database, other)) == (1, 0)


async def test_without_a_company_nothing_is_seen_changed_or_deleted(database: Database) -> None:
    one = await company_with_a_row(database)
    assert await count(database, None) == 0
    async with database.unit_of_work() as work:
        for change in (update(Expense).values(description="Theirs"), delete(Expense)):
            assert list(await work.scalars(change.returning(Expense.id))) == []
    assert await count(database, one) == 1


class RefusedError(DomainError):
    kind = Kind.REFUSED
    code = "refused_for_test"
    title = "Refused"
    remembered = True


@pytest.mark.parametrize("ends_with", [None, ZeroDivisionError, RefusedError])
async def test_a_company_is_forgotten_with_its_transaction_however_that_ends(
    database: Database, ends_with: type[Exception] | None
) -> None:
    """The pool hands the connection on."""
    one = await company_with_a_row(database)

    async def end() -> None:
        async with database.unit_of_work(company_id=one) as work:
            assert await work.scalar(text("select count(*) from expenses")) == 1
            if ends_with is not None:
                raise ends_with

    if ends_with is None:
        await end()
    else:
        with pytest.raises(ends_with):
            await end()
    async with database.unit_of_work() as work:
        assert not await work.scalar(select(func.current_setting(COMPANY_SETTING, True)))
    assert await count(database, None) == 0


async def test_a_further_transaction_of_the_same_work_is_fenced_as_the_first(database: Database) -> None:
    one, _ = await company_with_a_row(database), await company_with_a_row(database)
    async with database.unit_of_work(company_id=one) as work:
        for end in (work.commit, work.rollback, work.commit):
            assert set(await work.scalars(select(Expense.company_id))) == {one}
            await end()
        async with work.begin_nested():
            assert set(await work.scalars(select(Expense.company_id))) == {one}
        assert set(await work.scalars(select(Expense.company_id))) == {one}
