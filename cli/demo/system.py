"""What the story is told on: started, looked at, hurt and stopped from outside, as an operator would."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol, cast
from uuid import UUID

import asyncpg
import psutil

from access.digest import Document
from cli import progress
from cli.demo.proof import Proof, prove
from cli.demo.waiting import wait_until
from cli.here import home
from cli.running import NOT_READY_STATUS, Part, RunRecord, problem_of
from infra.embedded.child import running_pid
from infra.embedded.errors import CannotStart
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.state import StateFolder, is_free

_ROOT: Final = Path(__file__).parents[2]


class _NotReadyError(CannotStart):
    """What was started runs, and is ours to stop."""


class System(Protocol):
    """An installation whose services are processes, or containers, of their own."""

    def url(self, service: str, path: str) -> str:
        """Where a route of a service is."""

    def database(self, service: str) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """A service's database, read as the administrator of the server."""

    async def kill(self, *services: str) -> None:
        """End services by SIGKILL. They stay dead until `resume`."""

    async def lose_cache(self, service: str) -> None:
        """End a service as `kill` does, and delete its access cache."""

    async def resume(self) -> None:
        """Have started again what died."""

    async def problem_of(self, service: str) -> str | None:
        """Why a service is not ready, or None when it is."""

    async def prove(self, rows: Mapping[tuple[str, str], Document], *, module: str, member: tuple[UUID, UUID]) -> Proof:
        """Compare the cache of a module with what the rows of its owners say."""


async def committed_at(system: System, service: str, table: str, **key: Any) -> datetime:
    """When PostgreSQL committed the newest state of a row."""
    where = " and ".join(f"{name} = ${number}" for number, name in enumerate(key, 1))
    async with system.database(service) as connection:
        found = await connection.fetchval(
            f"select pg_xact_commit_timestamp(xmin) from {table} where {where}",  # noqa: S608  names of ours
            *key.values(),
        )
    if found is None:
        raise LookupError(f"{table} of {service} has no row {key}")
    return cast("datetime", found)


@dataclass(frozen=True)
class Processes:
    """A run of `kisum up` with one process per service."""

    state: StateFolder
    record: RunRecord

    def url(self, service: str, path: str) -> str:
        part = self._part(service)
        return f"{part.address}{part.route_groups[service]}{path}"

    @asynccontextmanager
    async def database(self, service: str) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(EmbeddedPostgres(self.state).dsn(service))
        try:
            yield connection
        finally:
            await connection.close()

    async def kill(self, *services: str) -> None:
        # The supervisor is stopped first: it would start them again.
        psutil.Process(self.record.pid).suspend()
        for service in services:
            pid = running_pid(self.state.pid_path(f"service-{service}"))
            if pid is None:
                raise LookupError(f"{service} does not run")
            os.kill(pid, signal.SIGKILL)
        await wait_until(
            lambda: self._are_gone(services), lambda are_gone: are_gone, describe=f"{', '.join(services)} have ended"
        )

    async def lose_cache(self, service: str) -> None:
        await self.kill(service)
        shutil.rmtree(self.access_folder(service))

    async def resume(self) -> None:
        psutil.Process(self.record.pid).resume()

    async def problem_of(self, service: str) -> str | None:
        part = self._part(service)
        return await problem_of(part.address, part.route_groups[service])

    async def prove(self, rows: Mapping[tuple[str, str], Document], *, module: str, member: tuple[UUID, UUID]) -> Proof:
        return prove(self.access_folder(module), rows, module=module, member=member)

    def access_folder(self, service: str) -> Path:
        """Where a service keeps its access cache."""
        return self.state.path / "access" / service

    async def _are_gone(self, services: tuple[str, ...]) -> bool:
        return all(is_free(self._part(service).port) for service in services)

    def _part(self, service: str) -> Part:
        return next(part for part in self.record.parts if service in part.route_groups)


def own_home(name: str) -> Path:
    """A folder beside the default one, so that no other installation is ever touched."""
    return home().with_name(f"{home().name}-{name}")


@asynccontextmanager
async def running_processes(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Processes]:
    """An installation of its own with one process per service, stopped at the end; its folder is kept.

    `settings` are environment variables of services. Raises CannotStart.
    """
    state = StateFolder.open(folder)
    if (pid := state.holder_pid()) is not None:
        raise CannotStart(
            f"{folder} is in use by process {pid}: wait for its end, or end it with `KISUM_HOME={folder} ./kisum down`"
        )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KISUM_")}
    environment |= {**settings, "KISUM_HOME": str(folder)}
    is_refused = False
    try:
        try:
            await _kisum(environment, "up", "--detach", "--processes")
        except CannotStart as refused:
            # What runs there now, if anything, is somebody else's.
            is_refused = not isinstance(refused, _NotReadyError)
            raise
        # Opened again: the start has chosen the ports.
        state = StateFolder.open(folder)
        record = RunRecord.read(state)
        if record is None:
            raise CannotStart(f"the start in {folder} did not last: see {state.log_path('up')}")
        yield Processes(state, record)
    finally:
        if not is_refused:
            await asyncio.shield(_stop(StateFolder.open(folder, minimum_free_bytes=0), environment))


async def _stop(state: StateFolder, environment: Mapping[str, str]) -> None:
    pid = state.holder_pid()
    if pid is not None:
        # A stopped supervisor could not obey.
        psutil.Process(pid).resume()
        await _kisum(environment, "down")


async def _kisum(environment: Mapping[str, str], *arguments: str) -> None:
    """Run the command, telling its lines up to the first empty one. Raises CannotStart with its reason."""
    with tempfile.TemporaryFile("w+") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", *arguments),
            cwd=_ROOT,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            # Ctrl-C is for the demo, which then stops what it started.
            start_new_session=True,
        )
        if process.stdout is None:
            raise AssertionError("its output is piped")
        is_told = True
        try:
            async for line in process.stdout:
                is_told = is_told and bool(line.strip())
                if is_told:
                    progress.line(line.decode().rstrip())
        finally:
            # Also when interrupted: what it starts can only be stopped once it is there.
            code = await asyncio.shield(process.wait())
        if code == NOT_READY_STATUS:
            raise _NotReadyError("not everything was ready in time")
        if code != 0:
            errors.seek(0)
            raise CannotStart(errors.read().strip().removeprefix("kisum: ") or f"`kisum {arguments[0]}` failed")
