"""How an application is served, by one process or several."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn
from starlette.applications import Starlette

#: How many more objects there are than at the last collection when the collector looks through the young.
_COLLECTION_OBJECTS: Final = 50_000
_GRACE_SECONDS: Final = 4
_LOOK_ROUND_SECONDS: Final = 1.0
#: How many of uvicorn's ticks, after which it writes the time into answers anew.
_TICKS: Final = 10


class Server(uvicorn.Server):
    """uvicorn's own wakes up ten times a second to see whether it is to end, which takes 0.17 % of a core in each
    process, five times what this one does. Here a signal says so at once.
    """

    def __init__(self, config: uvicorn.Config, *, look_round_seconds: float = _LOOK_ROUND_SECONDS) -> None:
        """`look_round_seconds`: after which it sees an end nobody has told it of, and tells the time in answers."""
        super().__init__(config)
        self._look_round_seconds = look_round_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_to_end = asyncio.Event()

    async def main_loop(self) -> None:
        """Return when it is to end."""
        self._loop = asyncio.get_running_loop()
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += _TICKS
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_round_seconds):
                    await self._is_to_end.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, and heard at once."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._is_to_end.set)


def run(application: Starlette, host: str, port: int) -> bool:
    """Answer in this process until a signal ends it; whether it could start."""
    keep_for_good()
    server = Server(configured(application, host, port, workers=1))
    server.run()
    return server.started


def configured(application: Starlette | Callable[[], Starlette], host: str, port: int, workers: int) -> uvicorn.Config:
    """With several workers the application is what makes one."""
    return uvicorn.Config(
        application,
        factory=workers > 1,
        workers=workers,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def keep_for_good() -> None:
    """Have the garbage collector look no more at what has been made so far, modules and routes, which live as long as
    the process does: each time it went through them, nobody was answered for 100 ms and more.
    """
    gc.collect()
    gc.freeze()
    # An answer of thousands of objects holds them until it is sent. Looked through every 700, as is usual, they grow
    # old meanwhile, and whatever is old is looked through for their sake.
    gc.set_threshold(_COLLECTION_OBJECTS, 10, 10)
