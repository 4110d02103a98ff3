"""Time-driven work: what has not been published is, superadmins get new catalog rows, what was given for a time is
taken away at its end, signing keys get successors.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.jobs import again_and_again, until_done
from contracts.identifiers import CompanyId
from infra.clock import Clock
from infra.outbox.bulk import CHUNK_ROWS_MAX, in_chunks
from infra.outbox.writer import Lane
from infra.postgres.database import Database
from services.auth.memberships import operations as memberships
from services.auth.permissions import operations as permissions
from services.auth.signing_keys.operations import KeyRing

#: Companies that are looked for at once.
_COMPANIES_MAX: Final = 200
_KEYS_INTERVAL_SECONDS: Final = 3600.0
#: Memberships per transaction of the interactive lane: their rows are locked for as long.
_ENDED_ROWS: Final = 50

_log = structlog.get_logger("kisum.auth")


async def publish_what_is_due(database: Database, clock: Clock) -> None:
    """Once per start: changed catalog rows, memberships older than publishing, and new rows to every superadmin."""
    async with database.unit_of_work() as work:
        await permissions.publish_changed(work, now=clock())

    async def publish(work: AsyncSession, _: int | None) -> int | None:
        return await memberships.publish_unpublished(work, now=clock(), limit=CHUNK_ROWS_MAX) or None

    await in_chunks(database, publish)
    await top_up_superadmins(database, clock)


async def top_up_superadmins(database: Database, clock: Clock) -> None:
    """Give every superadmin what the catalog has and they were never given, at most one company per transaction."""
    after: CompanyId | None = None
    while True:
        async with database.unit_of_work() as work:
            companies = await memberships.companies_to_top_up(work, now=clock(), limit=_COMPANIES_MAX, after=after)
        if not companies:
            return
        for company_id in companies:
            await in_chunks(database, partial(_top_up, clock, company_id))
        after = companies[-1]


async def _top_up(clock: Clock, company_id: CompanyId, work: AsyncSession, _: int | None) -> int | None:
    given = await memberships.top_up_company(work, company_id, now=clock(), lane=Lane.BULK, limit=CHUNK_ROWS_MAX)
    return given if given == CHUNK_ROWS_MAX else None


async def end_what_has_ended(database: Database, clock: Clock) -> None:
    """Take away what was given until now, for the record: who decides compares the ends with a clock themselves."""
    while True:
        async with database.unit_of_work() as work:
            ended = await memberships.end_grants(work, now=clock(), limit=_ENDED_ROWS)
        for each in ended:
            _log.info(
                "grants have ended",
                revision=str(each.revision),
                permissions=each.permissions,
                delegations=each.delegations,
            )
        if not ended:
            return


async def run_jobs(components: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """All of them, until cancelled."""
    async with asyncio.TaskGroup() as jobs:
        jobs.create_task(until_done("publish_what_is_due", lambda: publish_what_is_due(database, clock)))
        # Beside the others: they wait for room in the outbox, a key that is due must not.
        jobs.create_task(_keep_keys(components[KeyRing]))
        jobs.create_task(again_and_again("end_what_has_ended", lambda: end_what_has_ended(database, clock)))


async def _keep_keys(keys: KeyRing) -> None:
    while True:
        await until_done("prepare_keys", keys.prepare)
        await asyncio.sleep(_KEYS_INTERVAL_SECONDS)


JOBS: Final = (run_jobs,)
