"""Migrations and seeds: once each, never half, and never as the application role (document 004 tells the trap)."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, Text
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.migrations import alembic_config, migrate
from chassis.seeds import Seed
from chassis.service import Service
from cli.registry import load, service_names
from infra.postgres.provision import ServiceDatabase, provision
from services.auth.app import service as auth
from tests.harness.runtime import Runtime

MODULES = Table("modules", MetaData(), Column("key", Text, primary_key=True), Column("name", Text, nullable=False))
ROWS = {
    "basic": {"key": "basic", "name": "Basic"},
    "venue": {"key": "venue", "name": "Venue"},
    "ai": {"key": "ai", "name": "AI"},
}

CREATE = """
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.execute("create table modules (key text primary key, name text not null)")
"""
RENAME = """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.execute("update modules set key = 'promoter' where key = 'basic'")
"""
FAILS = """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.execute("insert into modules values ('half', 'done')")
    op.execute("select 1 / 0")
"""


class Legacy:
    """A service with one table, as Core's was: the real migration code on versions written into a folder."""

    def __init__(self, database: ServiceDatabase, administrator_url: str, versions: Path) -> None:
        self.versions = versions
        self.owner_url = database.owner_url(administrator_url)
        self.url = database.url(administrator_url)
        self.write("0001_create.py", CREATE)

    def write(self, name: str, version: str) -> None:
        (self.versions / name).write_text(version)

    async def start(self, rows: Mapping[str, Mapping[str, Any]] = ROWS) -> None:
        service: Service[Any] = replace(auth, migrations=self.versions, seeds=(Seed(MODULES, rows),))
        await migrate(service, self.owner_url)

    async def run(self, statement: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    async def modules(self) -> dict[str, str]:
        return {row["key"]: row["name"] for row in await self.run("select key, name from modules")}


@pytest_asyncio.fixture(loop_scope="session")
async def legacy(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Legacy]:
    database = ServiceDatabase(name=f"{runtime.new_prefix()}legacy", password="application", owner_password="owner")
    await provision(runtime.administrator_url, {"legacy": database})
    yield Legacy(database, runtime.administrator_url, tmp_path)


async def test_what_people_did_to_seeded_rows_stands_however_often_the_service_starts(legacy: Legacy) -> None:
    await legacy.start()
    await legacy.run("update modules set name = 'Venues and halls' where key = 'venue'")
    await legacy.run("delete from modules where key = 'ai'")
    legacy.write("0002_rename.py", RENAME)
    for _ in range(2):
        await legacy.start()
        assert await legacy.modules() == {"promoter": "Basic", "venue": "Venues and halls"}


async def test_a_seed_row_added_later_arrives_and_one_whose_key_is_taken_does_not_overwrite(legacy: Legacy) -> None:
    await legacy.start()
    await legacy.run("insert into modules values ('touring', 'Ours')")
    later = {
        **ROWS,
        "touring": {"key": "touring", "name": "Seeded"},
        "finance": {"key": "finance", "name": "Finance"},
    }
    await legacy.start(later)
    found = await legacy.modules()
    assert (found["touring"], found["finance"]) == ("Ours", "Finance")


async def test_a_migration_that_fails_leaves_the_database_as_it_was(legacy: Legacy) -> None:
    await legacy.start()
    legacy.write("0002_fails.py", FAILS)
    with pytest.raises(Exception, match="division by zero"):
        await legacy.start({**ROWS, "late": {"key": "late", "name": "Late"}})
    assert set(await legacy.modules()) == set(ROWS)


async def test_two_starts_at_once_migrate_and_seed_once(legacy: Legacy) -> None:
    await asyncio.gather(*(legacy.start() for _ in range(4)))
    assert await legacy.modules() == {key: row["name"] for key, row in ROWS.items()}


@pytest.mark.parametrize(
    "statement",
    [
        "create table mine (id int)",
        "alter table modules add column more text",
        "drop table modules",
        "truncate modules",
        "select * from migration.applied_seeds",
        "delete from migration.alembic_version",
        "set role {owner}",
        "create schema mine",
    ],
)
async def test_the_application_role_owns_nothing(legacy: Legacy, statement: str) -> None:
    await legacy.start()
    owner = legacy.owner_url.partition("//")[2].partition(":")[0]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await legacy.run(statement.format(owner=owner))


@pytest.mark.parametrize("name", service_names())
async def test_each_service_has_one_newest_version_and_its_tables_are_what_the_code_says(
    runtime: Runtime, name: str
) -> None:
    service = load([name])[name]
    metadata = importlib.import_module(f"services.{name}.database").Base.metadata
    assert len(ScriptDirectory.from_config(alembic_config(service.migrations)).get_heads()) == 1
    database = ServiceDatabase(name=f"{runtime.new_prefix()}{name}", password="application", owner_password="owner")
    await provision(runtime.administrator_url, {name: database})
    await migrate(service, database.owner_url(runtime.administrator_url))
    owner_url = database.owner_url(runtime.administrator_url).replace("postgresql:", "postgresql+asyncpg:")
    engine = create_async_engine(owner_url)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    await engine.dispose()
    assert differences == []
