"""Time-driven work: the provider's reports are sent, and subscriptions whose time is over are closed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from contracts.errors import DomainError
from infra.clock import Clock
from infra.postgres.database import Database
from services.checkout.offline_provider.operations import Courier
from services.checkout.subscriptions.operations import end_lapsed

_PAUSE_SECONDS: Final = 1.0
_log = structlog.get_logger("kisum.checkout")


async def _again_and_again(run: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except DomainError as error:
            _log.warning("job not done, tried again", job=run.__name__, reason=error.code)
        except Exception:  # noqa: BLE001  it is logged, and one failure must not end the job for good
            _log.exception("job failed unexpectedly", job=run.__name__)
        await pause()


async def deliver_webhooks(components: Mapping[type, Any], _database: Database, _clock: Clock) -> None:
    """Send the offline provider's reports, until cancelled."""
    courier: Courier = components[Courier]

    async def deliver() -> None:
        while await courier.deliver_next():
            pass

    try:
        await _again_and_again(deliver, lambda: courier.rest(_PAUSE_SECONDS))
    finally:
        await courier.close()


async def close_lapsed_subscriptions(_: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """End subscriptions whose time is over, until cancelled."""

    async def close() -> None:
        async with database.unit_of_work() as work:
            closed = await end_lapsed(work, now=clock())
        if closed:
            _log.info("subscriptions ended", count=closed)

    await _again_and_again(close, lambda: asyncio.sleep(_PAUSE_SECONDS))


JOBS: Final = (deliver_webhooks, close_lapsed_subscriptions)
