"""What the groups of figures share: each part is made when it is first asked for, and all end with the run.

Two installations of servers never run at once: on a small machine one would be the other's load.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.fleet import Fleet, fleet
from benchmarks.instance import Instance
from benchmarks.record_log import RecordLog, record_log
from cli import progress
from cli.demo.system import Processes, own_home, running_processes
from infra.embedded.state import StateFolder
from tests.harness.runtime import Runtime, embedded_runtime

#: Of the company whose books are asked for lists and sums.
EXPENSES: Final = 1_000_000


class Bed:
    """`folder` is for whatever a figure needs on disk; it is thrown away. Fewer expenses are for trials."""

    def __init__(self, folder: Path, *, expenses: int = EXPENSES) -> None:
        self.folder = folder
        self.expenses = expenses
        #: The servers that run now, and all that runs on them.
        self._running = AsyncExitStack()
        self._runtime: Runtime | None = None
        self._log: RecordLog | None = None
        self._system: Processes | None = None
        self._fleet: Fleet | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    async def runtime(self) -> Runtime:
        """A Kafka and a PostgreSQL with nothing on them."""
        if self._runtime is None:
            await self._clear()
            with progress.step("Kafka and PostgreSQL"):
                self._runtime = await self._running.enter_async_context(embedded_runtime(self.folder / "servers"))
        return self._runtime

    async def log(self) -> RecordLog:
        """The log of a million memberships, and its heartbeats."""
        if self._log is None:
            runtime = await self.runtime()
            self._log = await self._running.enter_async_context(record_log(runtime))
        return self._log

    async def instance(self) -> Instance:
        """An instance that follows that log, when it runs; its cache may be empty."""
        return Instance(self.folder / "access", (await self.log()).kafka)

    async def filled_instance(self) -> Instance:
        """The same with all of the log in its cache."""
        instance = await self.instance()
        if not instance.is_filled:
            with progress.step("a cache of the log"):
                await instance.start()
        return instance

    async def system(self) -> Processes:
        """An installation as `kisum up --processes` starts it."""
        if self._system is None:
            await self._clear()
            self._system = await self._running.enter_async_context(_system_of_this_run())
        return self._system

    async def fleet(self) -> Fleet:
        """The same with more instances of a module, so that thirteen follow the log."""
        if self._fleet is None:
            system = await self.system()
            self._fleet = await self._running.enter_async_context(fleet(system))
        return self._fleet

    async def _clear(self) -> None:
        await self._running.aclose()
        self._running = AsyncExitStack()
        self._runtime = self._log = self._system = self._fleet = None


@asynccontextmanager
async def _system_of_this_run() -> AsyncIterator[Processes]:
    """An installation with nothing in it that an earlier run has left."""
    folder = own_home("bench")
    _remove(folder)
    async with running_processes(folder, {}) as system:
        yield system
    _remove(folder)


def _remove(folder: Path) -> None:
    state = StateFolder.open(folder)
    if state.holder_pid() is None:
        state.remove()
