"""Time-driven work: what was seeded is published as soon as the database answers."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from contracts.errors import DomainError
from infra.clock import Clock
from infra.postgres.database import Database
from services.entitlements.catalog import operations

_RETRY_SECONDS: Final = 1.0
_log = structlog.get_logger("kisum.entitlements")


async def publish_catalog(_: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """Publish what was seeded or edited since the last start, once; a database that is away is waited for."""
    while True:
        try:
            async with database.unit_of_work() as work:
                published = await operations.publish_catalog(work, now=clock())
        except DomainError as error:
            _log.warning("catalog not published yet", reason=error.code)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            _log.info("catalog is published", rows=published)
            return


JOBS: Final = (publish_catalog,)
