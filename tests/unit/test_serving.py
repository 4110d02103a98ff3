import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from cli.serve import run


@asynccontextmanager
async def tell_and_end(_: Starlette) -> AsyncIterator[None]:
    print(gc.get_freeze_count(), len(gc.get_objects()))  # noqa: T201 - to the process that asks
    os.kill(os.getpid(), signal.SIGTERM)
    yield


def test_the_collector_passes_over_what_was_made_before_anybody_is_answered() -> None:
    told = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=False).stdout
    passed_over, looked_at = map(int, told.split())
    assert passed_over > 10 * looked_at


if __name__ == "__main__":
    run(Starlette(lifespan=tell_and_end), "127.0.0.1", 0)
