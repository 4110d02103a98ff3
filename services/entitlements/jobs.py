"""Time-driven work: what was seeded is published as soon as the database answers, what ends when it does."""

from collections.abc import Mapping
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.jobs import again_and_again, until_done
from infra.clock import Clock
from infra.outbox.bulk import CHUNK_ROWS_MAX, in_chunks
from infra.postgres.database import Database
from services.entitlements.catalog import operations as catalog
from services.entitlements.companies import operations as companies

#: Companies per transaction: their rows are locked for as long.
_CHUNK_ROWS: Final = 50

_log = structlog.get_logger("kisum.entitlements")


async def publish_catalog(_: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """Publish what was seeded or edited since the last start, once; a database that is away is waited for."""

    async def publish_some(work: AsyncSession, count: int | None) -> int | None:
        published = await catalog.publish_catalog(work, now=clock(), limit=CHUNK_ROWS_MAX)
        if not published:
            _log.info("catalog is published", rows=count or 0)
            return None
        return (count or 0) + published

    async def publish() -> None:
        await in_chunks(database, publish_some)

    await until_done("publish_catalog", publish)


async def publish_ends(_: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """Each second publish what has ended. Nobody waits for it to refuse, except for what needs a capability."""
    await again_and_again("publish_ends", lambda: publish_what_has_ended(database, clock))


async def publish_what_has_ended(database: Database, clock: Clock) -> None:
    """All of it, some companies at a time."""
    while True:
        async with database.unit_of_work() as work:
            found = await companies.publish_ended(work, now=clock(), limit=_CHUNK_ROWS)
        for revision in found:
            if revision is not None:
                _log.info("an entitlement has ended", revision=str(revision))
        if not found:
            return


JOBS: Final = (publish_catalog, publish_ends)
