import asyncio
import contextlib

import pytest

from infra.kafka.starting import start_whole


async def test_a_cancelled_start_is_over_before_the_cancellation_goes_on() -> None:
    connecting, go_on, connected = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def start() -> None:
        connecting.set()
        await go_on.wait()
        connected.set()

    starting = asyncio.create_task(start_whole(start()))
    await connecting.wait()
    # As often as it is asked: `end_tasks` asks each second.
    for _ in range(3):
        starting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not starting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert connected.is_set()


async def test_a_start_that_fails_fails() -> None:
    async def start() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await start_whole(start())


async def test_a_cancelled_start_that_then_fails_is_a_cancellation() -> None:
    connecting, go_on = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        connecting.set()
        await go_on.wait()
        raise OSError("away")

    starting = asyncio.create_task(start_whole(start()))
    await connecting.wait()
    starting.cancel()
    go_on.set()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    assert starting.cancelled()
