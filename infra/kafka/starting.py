"""Starting a Kafka client whole or not at all."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from infra.tasks import wait_regardless

_WHOLE_TIMEOUT_SECONDS: Final = 3.0


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
