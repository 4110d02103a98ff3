"""Time-driven work: what was seeded is published as soon as the database answers."""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from chassis.jobs import until_done
from infra.clock import Clock
from infra.postgres.database import Database
from services.entitlements.catalog import operations

_log = structlog.get_logger("kisum.entitlements")


async def publish_catalog(_: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """Publish what was seeded or edited since the last start, once; a database that is away is waited for."""

    async def publish() -> None:
        async with database.unit_of_work() as work:
            published = await operations.publish_catalog(work, now=clock())
        _log.info("catalog is published", rows=published)

    await until_done("publish_catalog", publish)


JOBS: Final = (publish_catalog,)
