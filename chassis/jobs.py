"""Time-driven work that outlives its failures: each is logged, and after a pause the work is tried again.

Every instance of a service runs all of its jobs, and what they do takes effect once all the same. Nobody is elected:
the transaction of the effect says that it was done. Of two ways to say it the first that fits is taken.

1. *What is due stands in rows*: a grant that ends, a key that is too old. The job finds such rows and changes them in
   one transaction. An instance that comes at the same time waits for their locks, or skips them, and finds them done.
2. *No row tells that something is due*: a digest of each day. The job asks `next_window`, which notes in `job_runs`, in
   the transaction of the effect, up to when the job was done. Windows adjoin, so that nothing is done twice or left out
   while no instance ran.

An instance that dies takes its transaction with it, and the next to look does it. What can be derived when it is asked
for (a bill that is overdue) needs no job. A module works company by company (`every_company`), since row-level security
shows one at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import Column, DateTime, MetaData, Table, Text, Uuid, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.errors import DomainError
from contracts.identifiers import CompanyId
from infra.postgres.row_security import isolate_by_company

PAUSE_SECONDS: Final = 1.0
#: From where windows are counted.
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

Work = Callable[[], Awaitable[object]]

_log = structlog.get_logger("kisum.jobs")


async def rest() -> None:
    """The pause before work is tried again."""
    await asyncio.sleep(PAUSE_SECONDS)


async def until_done(job: str, work: Work, pause: Work = rest) -> None:
    """Do it once; what fails is tried again until it succeeds."""
    while not await _is_done(job, work):
        await pause()


async def again_and_again(job: str, work: Work, pause: Work = rest) -> None:
    """Do it after every pause, until cancelled."""
    while True:
        await _is_done(job, work)
        await pause()


async def _is_done(job: str, work: Work) -> bool:
    try:
        await work()
    except DomainError as error:
        _log.warning("a job is not done and tried again", job=job, reason=error.code)
        return False
    except Exception:  # noqa: BLE001  it is logged, and one failure must not end the job for good
        _log.exception("a job failed unexpectedly and is tried again", job=job)
        return False
    return True


_METADATA: Final = MetaData()

#: Up to when, exclusive, each job was done for each company. Fenced by company.
job_runs: Final = Table(
    "job_runs",
    _METADATA,
    Column("company_id", Uuid(), primary_key=True),
    Column("job", Text, primary_key=True),
    Column("done_until", DateTime(timezone=True)),
)

_CREATE: Final = """
    create table job_runs (
        company_id uuid not null, job text not null, done_until timestamptz, primary key (company_id, job)
    )
"""


def add_job_runs_table(metadata: MetaData) -> None:
    """Make the table part of a service's metadata."""
    job_runs.to_metadata(metadata)


def create_job_runs(op: Any) -> None:
    """Create the table in an Alembic version; `op` is Alembic's. What this creates never changes."""
    op.execute(_CREATE)
    isolate_by_company(op, "job_runs")


def drop_job_runs(op: Any) -> None:
    """Undo `create_job_runs`."""
    op.execute("drop table job_runs")


@dataclass(frozen=True)
class Window:
    """The time a run of a job is for, from `begins_at` up to and without `ends_at`."""

    #: None for the first: from when on there is something to do, the job knows.
    begins_at: datetime | None
    ends_at: datetime


async def next_window(
    work: AsyncSession, company_id: CompanyId, job: str, *, every: timedelta, now: datetime
) -> Window | None:
    """What a job is to do for a company in this unit of work; None while nothing is due.

    A window ends at a multiple of `every` since 1970, in UTC, that has come, and begins where the last one ended. It is
    noted as done if this unit of work commits; an instance that comes meanwhile waits for how that ends.
    """
    ends_at = _BEGINNING + (now - _BEGINNING) // every * every
    own = (job_runs.c.company_id == company_id, job_runs.c.job == job)
    await work.execute(insert(job_runs).values(company_id=company_id, job=job).on_conflict_do_nothing())
    done_until = (await work.execute(select(job_runs.c.done_until).where(*own).with_for_update())).scalar_one()
    if done_until is not None and done_until >= ends_at:
        return None
    await work.execute(update(job_runs).where(*own).values(done_until=ends_at))
    return Window(done_until, ends_at)
