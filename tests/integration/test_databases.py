"""One database and two roles per service, and none may be at home in another's."""

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from infra.postgres.database import Database, DatabaseUnavailableError, at_one_moment
from infra.postgres.provision import ServiceDatabase, provision
from tests.harness.runtime import Runtime


async def two_services(runtime: Runtime) -> tuple[ServiceDatabase, ServiceDatabase]:
    one, other = (
        ServiceDatabase(name=f"{runtime.new_prefix()}{name}", password=f"{name} 'pass' %", owner_password="owner")
        for name in ("one", "other")
    )
    await provision(runtime.administrator_url, {"one": one, "other": other})
    return one, other


async def connect(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("select current_database() || ' as ' || current_user"))
    finally:
        await connection.close()


async def test_a_role_opens_its_own_database_and_no_other(runtime: Runtime) -> None:
    one, other = await two_services(runtime)
    url = one.url(runtime.administrator_url)
    assert await connect(url) == f"{one.name} as {one.name}"
    for stranger in (url, one.owner_url(runtime.administrator_url)):
        for target in (other.name, "postgres", "template1"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connect(stranger.rpartition("/")[0] + f"/{target}")


async def test_a_wrong_password_is_refused_and_a_new_one_holds_after_provisioning_again(runtime: Runtime) -> None:
    one, _ = await two_services(runtime)
    changed = ServiceDatabase(name=one.name, password="another", owner_password=one.owner_password)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(changed.url(runtime.administrator_url))
    await provision(runtime.administrator_url, {"one": changed})
    await connect(changed.url(runtime.administrator_url))
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(one.url(runtime.administrator_url))


async def test_a_server_that_is_away_is_a_fact_of_its_own() -> None:
    database = Database("postgresql://nobody:nothing@127.0.0.1:1/none", application_name="test")
    with pytest.raises(DatabaseUnavailableError):
        await database.check()
    await database.close()


async def run(database: Database, *statements: str) -> None:
    async with database.unit_of_work() as work:
        for statement in statements:
            await work.execute(text(statement))


@pytest.mark.parametrize(
    "statement", ["select pg_sleep(60)", "select pg_terminate_backend(pg_backend_pid())"], ids=["too slow", "cut off"]
)
async def test_a_query_that_is_ended_from_outside_is_the_same_fact_and_the_next_one_is_answered(
    runtime: Runtime, statement: str
) -> None:
    one, _ = await two_services(runtime)
    database = Database(one.url(runtime.administrator_url), application_name="test")
    with pytest.raises(DatabaseUnavailableError):
        await run(database, "set local statement_timeout = '100ms'", statement)
    await database.check()
    await database.close()


async def test_a_lock_held_by_another_is_waited_for_only_so_long(runtime: Runtime) -> None:
    one, _ = await two_services(runtime)
    database = Database(one.url(runtime.administrator_url), application_name="test")
    async with database.unit_of_work() as holder:
        await holder.execute(text("select pg_advisory_xact_lock(1)"))
        with pytest.raises(DatabaseUnavailableError):
            await run(database, "set local lock_timeout = '100ms'", "select pg_advisory_xact_lock(1)")
    await database.close()


async def test_a_unit_of_work_at_one_moment_sees_nothing_that_came_later_and_writes_nothing(runtime: Runtime) -> None:
    one, _ = await two_services(runtime)
    owner = Database(one.owner_url(runtime.administrator_url), application_name="test")
    await run(owner, "create table numbers (number int)", "insert into numbers values (1)")
    count = text("select count(*) from numbers")
    async with owner.unit_of_work() as work:
        await at_one_moment(work)
        assert await work.scalar(count) == 1
        await run(owner, "insert into numbers values (2)")
        assert await work.scalar(count) == 1
    # The connection is the pool's, and what it was for one is nothing to the next.
    async with owner.unit_of_work() as work:
        assert await work.scalar(count) == 2
        await run(owner, "insert into numbers values (3)")
        assert await work.scalar(count) == 3
        with pytest.raises(RuntimeError, match="it has begun"):
            await at_one_moment(work)
    async with owner.unit_of_work() as work:
        await at_one_moment(work)
        with pytest.raises(DBAPIError, match="read-only"):
            await work.execute(text("insert into numbers values (4)"))
    await owner.close()
