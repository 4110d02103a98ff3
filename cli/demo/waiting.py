"""Waiting on a state, and a step that did not go as told."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

_POLL_SECONDS: Final = 0.005

State = TypeVar("State")


class StepFailedError(Exception):
    """What was expected, and what came instead."""


async def wait_until(
    read: Callable[[], Awaitable[State]],
    accepted: Callable[[State], bool],
    *,
    describe: str,
    show: Callable[[State], str] = repr,
    fails: Callable[[State], bool] = lambda _: False,
    timeout_seconds: float = 30.0,
) -> State:
    """Read a state until it is accepted and return it.

    Raises StepFailedError with the last state seen, after the timeout or where the state can no longer become right.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        state = await read()
        if accepted(state):
            return state
        if fails(state) or time.monotonic() > deadline:
            raise StepFailedError(f"{describe}: not so; last seen: {show(state)}")
        await asyncio.sleep(_POLL_SECONDS)
