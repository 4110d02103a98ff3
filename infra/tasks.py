"""Ending tasks for sure."""

import asyncio
from typing import Any, Final

_ASK_AGAIN_SECONDS: Final = 1.0


async def wait_regardless(task: "asyncio.Future[Any]", *, timeout_seconds: float) -> asyncio.CancelledError | None:
    """Wait until a task is done, no longer than told, also where whoever waits is cancelled, be it again and again.

    Gives the last of these cancellations, which the caller raises when it has done what remains to be done.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_seconds
    cancellation: asyncio.CancelledError | None = None
    while not task.done() and loop.time() < until:
        try:
            await asyncio.wait({task}, timeout=until - loop.time())
        except asyncio.CancelledError as cancelled:
            cancellation = cancelled
    return cancellation


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they are over, whatever they end with.

    Asked again each second: a cancellation that arrives as what a library waits for does is lost there (Python 3.11's
    `wait_for` returns the result instead), and a loop around it would go on for ever.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_ASK_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()
