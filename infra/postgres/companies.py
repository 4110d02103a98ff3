"""Which companies a fenced database has rows of: for what is done for all of them, a job or a relay.

Row-level security hides every row from whoever names no company, so such work first has to know whom to name. The table
holds ids only and is filled by the fenced tables themselves.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

from sqlalchemy import Column, MetaData, Table, Uuid, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import CompanyId
from infra.postgres.database import Database
from infra.postgres.row_security import COMPANY_SETTING

_PAGE_ROWS: Final = 500
_METADATA: Final = MetaData()

companies: Final = Table("companies", _METADATA, Column("company_id", Uuid(), primary_key=True))

_CREATE: Final = (
    "create table companies (company_id uuid primary key)",
    """
    create function note_company() returns trigger language plpgsql as $$ begin
        insert into companies (company_id) values (new.company_id) on conflict do nothing; return null;
    end $$
    """,
)


def add_companies_table(metadata: MetaData) -> None:
    """Make the table part of a service's metadata."""
    companies.to_metadata(metadata)


def create_companies(op: Any) -> None:
    """Create the table in an Alembic version; `op` is Alembic's. What this creates never changes."""
    for statement in _CREATE:
        op.execute(statement)


def drop_companies(op: Any) -> None:
    """Undo `create_companies`, after every table that was given to `note_companies_of`."""
    op.execute("drop function note_company()")
    op.execute("drop table companies")


def note_companies_of(op: Any, table: str) -> None:
    """Have every company known that has a row in this fenced table, or gets one."""
    op.execute(f"create trigger note_company after insert on {table} for each row execute function note_company()")
    # For the length of the migration, in which nobody else gets at the table, its owner sees all of it.
    op.execute(f"alter table {table} no force row level security")
    op.execute(f"insert into companies select distinct company_id from {table} on conflict do nothing")  # noqa: S608
    op.execute(f"alter table {table} force row level security")


async def companies_from(work: AsyncSession, first: CompanyId | None, *, limit: int) -> list[CompanyId]:
    """Companies in the order of their ids, from this one on."""
    rows = select(companies.c.company_id).order_by(companies.c.company_id).limit(limit)
    if first is not None:
        rows = rows.where(companies.c.company_id >= first)
    return [CompanyId(company_id) for company_id in await work.scalars(rows)]


async def every_company(database: Database) -> AsyncIterator[CompanyId]:
    """Each company there are rows of; what is done for one is a unit of work that names it."""
    first: CompanyId | None = None
    while True:
        async with database.unit_of_work() as work:
            page = await companies_from(work, first, limit=_PAGE_ROWS)
        for company_id in page:
            if company_id != first:
                yield company_id
        if len(page) < _PAGE_ROWS:
            return
        first = page[-1]


async def enter_company(work: AsyncSession, company_id: CompanyId) -> None:
    """From here to the transaction's end, show and take this company's rows: for work on one company after another."""
    # What was changed of the company before is written while its rows are still to be seen.
    await work.flush()
    await work.execute(select(func.set_config(COMPANY_SETTING, str(company_id), True)))
