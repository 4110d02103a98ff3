"""Time-driven work: the provider's reports are sent, and subscriptions whose time is over are closed."""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from chassis.jobs import PAUSE_SECONDS, again_and_again
from infra.clock import Clock
from infra.postgres.database import Database
from services.checkout.offline_provider.operations import Courier
from services.checkout.subscriptions.operations import end_lapsed

_log = structlog.get_logger("kisum.checkout")


async def deliver_webhooks(components: Mapping[type, Any], _database: Database, _clock: Clock) -> None:
    """Send the offline provider's reports, until cancelled."""
    courier: Courier = components[Courier]

    async def deliver() -> None:
        while await courier.deliver_next():
            pass

    try:
        await again_and_again("deliver_webhooks", deliver, lambda: courier.rest(PAUSE_SECONDS))
    finally:
        await courier.close()


async def close_lapsed_subscriptions(_: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """End subscriptions whose time is over, until cancelled."""

    async def close() -> None:
        async with database.unit_of_work() as work:
            closed = await end_lapsed(work, now=clock())
        if closed:
            _log.info("subscriptions ended", count=closed)

    await again_and_again("close_lapsed_subscriptions", close)


JOBS: Final = (deliver_webhooks, close_lapsed_subscriptions)
