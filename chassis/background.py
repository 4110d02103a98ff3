"""What runs beside a service's handlers, and the readiness that shows when it no longer does."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from contracts.errors import DomainError, Kind
from infra.tasks import end_tasks

_log = structlog.get_logger("kisum.service")


class BackgroundEndedError(DomainError):
    """Only a new start of the process brings it back."""

    kind = Kind.UNAVAILABLE
    code = "background_ended"
    title = "A part of the service has ended"


class Background:
    """Feed, relay and jobs of one service."""

    def __init__(self) -> None:
        self._ended: dict[str, str] = {}

    @asynccontextmanager
    async def running(
        self, name: str, work: Coroutine[Any, Any, None], *, may_end: bool = False
    ) -> AsyncIterator[None]:
        """Run something until the block ends. That it ends before, unless it may, or fails is a defect: it is logged,
        and from then on `check` says so.
        """

        def note_the_end(task: "asyncio.Task[None]") -> None:
            # Who cancels it in order has taken this away before; a library has let a cancellation of its own through.
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None and may_end:
                return
            reason = "it returned" if error is None else repr(error)
            self._ended[name] = reason
            _log.critical("a part of the service has ended", part=name, reason=reason)

        task = asyncio.create_task(work)
        task.add_done_callback(note_the_end)
        try:
            yield
        finally:
            task.remove_done_callback(note_the_end)
            await end_tasks(task)

    async def check(self) -> None:
        """Raises BackgroundEndedError naming each that has ended."""
        if self._ended:
            raise BackgroundEndedError(", ".join(sorted(self._ended)))
