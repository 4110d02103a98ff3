"""Time-driven work: what has not been published is, superadmins get new catalog rows, signing keys get successors."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import func, select

from chassis.jobs import until_done
from infra.clock import Clock
from infra.outbox.tables import states
from infra.outbox.writer import Lane
from infra.postgres.database import Database
from services.auth.memberships import operations as memberships
from services.auth.permissions import operations as permissions
from services.auth.signing_keys.operations import KeyRing

#: Rows of the bulk lane per transaction, and pending at once (design §4): they never delay a revocation.
_CHUNK_ROWS: Final = 200
_DRAIN_SECONDS: Final = 0.2
_KEYS_INTERVAL_SECONDS: Final = 3600.0


async def publish_what_is_due(database: Database, clock: Clock) -> None:
    """Once per start: changed catalog rows, memberships older than publishing, and new rows to every superadmin."""
    async with database.unit_of_work() as work:
        await permissions.publish_changed(work, now=clock())
    while True:
        await _wait_for_room(database)
        async with database.unit_of_work() as work:
            if not await memberships.publish_unpublished(work, now=clock(), limit=_CHUNK_ROWS):
                break
    await top_up_superadmins(database, clock)


async def top_up_superadmins(database: Database, clock: Clock) -> None:
    """Give every superadmin what the catalog has and they were never given, one company per transaction."""
    while True:
        async with database.unit_of_work() as work:
            companies = await memberships.companies_to_top_up(work, now=clock(), limit=_CHUNK_ROWS)
        if not companies:
            return
        for company_id in companies:
            await _wait_for_room(database)
            async with database.unit_of_work() as work:
                await memberships.top_up_company(work, company_id, now=clock(), lane=Lane.BULK)


async def run_jobs(components: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """All of them, until cancelled."""
    async with asyncio.TaskGroup() as jobs:
        jobs.create_task(until_done("publish_what_is_due", lambda: publish_what_is_due(database, clock)))
        # Beside the others: they wait for room in the outbox, a key that is due must not.
        jobs.create_task(_keep_keys(components[KeyRing]))


async def _keep_keys(keys: KeyRing) -> None:
    while True:
        await until_done("prepare_keys", keys.prepare)
        await asyncio.sleep(_KEYS_INTERVAL_SECONDS)


async def _wait_for_room(database: Database) -> None:
    while True:
        async with database.unit_of_work() as work:
            pending = await work.scalar(
                select(func.count())
                .select_from(states)
                .where(states.c.lane == Lane.BULK, states.c.refused_at.is_(None))
            )
        if (pending or 0) < _CHUNK_ROWS:
            return
        await asyncio.sleep(_DRAIN_SECONDS)


JOBS: Final = (run_jobs,)
