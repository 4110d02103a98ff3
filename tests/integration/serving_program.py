"""Two workers that serve next to nothing: `python -m tests.integration.serving_program FACTORY`."""

import os
import signal
import sys
from typing import Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from cli.workers import Workers
from infra.telemetry.logging import configure_logging

_HANGING_SECONDS: Final = 2


def serving() -> ASGIApp:
    return _Application(can_start=True)


def refusing_to_start() -> ASGIApp:
    return _Application(can_start=False)


def dying() -> ASGIApp:
    os._exit(7)


def killed() -> ASGIApp:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it is over")


class _Application:
    def __init__(self, *, can_start: bool) -> None:
        self._can_start = can_start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise AssertionError("nobody asks it anything")
        await receive()
        await send({"type": f"lifespan.startup.{'complete' if self._can_start else 'failed'}"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


def main() -> None:
    configure_logging("INFO")
    config = uvicorn.Config(
        f"{__spec__.name}:{sys.argv[1]}",
        factory=True,
        workers=2,
        port=0,
        log_config=None,
        timeout_worker_healthcheck=_HANGING_SECONDS,
    )
    workers = Workers(config, sockets=[config.bind_socket()])
    workers.run()
    sys.exit(1 if workers.has_failed else 0)


if __name__ == "__main__":
    main()
