"""A server ends when a signal says so, not when it next looks round, and its collector has little to look at."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette

from cli.demo.waiting import wait_until
from cli.server import Server, run

_HOUR_SECONDS = 3600.0


async def _nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """Is never called."""


async def test_a_signal_ends_a_server_that_waits() -> None:
    config = uvicorn.Config(_nothing, port=0, lifespan="off", log_config=None, log_level="warning")
    server = Server(config, look_round_seconds=_HOUR_SECONDS)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()

    async def waits() -> bool:
        return server.started and bool(server._is_to_end._waiters)

    await wait_until(waits, bool, describe="the server waits")
    server.handle_exit(signal.SIGTERM, None)
    thread.join(timeout=30)
    assert not thread.is_alive()


async def test_a_server_that_is_told_before_it_waits_ends_too() -> None:
    config = uvicorn.Config(_nothing, port=0, lifespan="off", log_config=None, log_level="warning")
    server = Server(config, look_round_seconds=_HOUR_SECONDS)
    server.handle_exit(signal.SIGTERM, None)
    await server.main_loop()


@asynccontextmanager
async def tell_and_end(_: Starlette) -> AsyncIterator[None]:
    print(gc.get_freeze_count(), len(gc.get_objects()), flush=True)  # noqa: T201 - to the process that asks
    os.kill(os.getpid(), signal.SIGTERM)
    yield


def test_the_collector_passes_over_what_was_made_before_anybody_is_answered() -> None:
    told = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=False).stdout
    passed_over, looked_at = map(int, told.split())
    assert passed_over > 10 * looked_at


if __name__ == "__main__":
    run(Starlette(lifespan=tell_and_end), "127.0.0.1", 0)
