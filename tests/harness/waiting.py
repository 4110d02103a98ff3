"""Wait on a state, never on time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

_POLL_SECONDS: Final = 0.02

State = TypeVar("State")


async def wait_until(
    read: Callable[[], Awaitable[State]],
    accepted: Callable[[State], bool],
    *,
    describe: str,
    timeout_seconds: float = 30.0,
) -> State:
    """Read a state until it is accepted and return it; after the timeout fail with the last state seen."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        state = await read()
        if accepted(state):
            return state
        if time.monotonic() > deadline:
            raise AssertionError(f"{describe}: not within {timeout_seconds:g} s; last seen: {state!r}")
        await asyncio.sleep(_POLL_SECONDS)
