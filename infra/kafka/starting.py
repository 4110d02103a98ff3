"""Starting a Kafka client whole or not at all, and ending one whatever happens meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from infra.tasks import wait_regardless

_WHOLE_TIMEOUT_SECONDS: Final = 3.0

_log: Final = structlog.get_logger("kisum.kafka")


async def start_whole(start: Coroutine[Any, Any, Any]) -> None:
    """Run a client's `start()`; who cancels it waits until it is over, for 3 s at most.

    aiokafka forgets a connection that is cancelled while it is being made: its `stop()` would not close it.
    """
    starting = asyncio.ensure_future(start)
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Asked to end once more (end_tasks does each second), it would leave behind a client that nobody stops.
        await wait_regardless(starting, timeout_seconds=_WHOLE_TIMEOUT_SECONDS)
        if starting.done() and not starting.cancelled():
            starting.exception()  # The cancellation is what counts; that start failed too is no news.
        starting.cancel()
        raise


async def stop_whole(stop: Coroutine[Any, Any, Any], *, timeout_seconds: float) -> None:
    """Run a client's `stop()`, also where the task is cancelled meanwhile, be it again and again.

    A stop that is cancelled half way leaves connections open. One that does not end in time is left alone. How it ends
    is logged and is not the caller's end: aiokafka may pass a cancellation of its own on.
    """
    stopping = asyncio.ensure_future(stop)
    cancellation = await wait_regardless(stopping, timeout_seconds=timeout_seconds)
    if not stopping.done():
        stopping.cancel()
        _log.error("a Kafka client could not be stopped", seconds=timeout_seconds)
    elif stopping.cancelled():
        _log.warning("a Kafka client did not stop cleanly", error="it was cancelled")
    elif (error := stopping.exception()) is not None:
        _log.warning("a Kafka client did not stop cleanly", error=repr(error))
    if cancellation is not None:
        raise cancellation
