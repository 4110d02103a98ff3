"""`kisum up`, `down`, `status`, `reset`."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TextIO

import click

from cli import progress
from cli.installation import Installation, home
from cli.registry import load
from cli.running import Part, RunRecord, is_ready, problem_of
from cli.welcome import welcome
from infra.embedded.child import Child
from infra.embedded.errors import AlreadyHeld, CannotStart
from infra.embedded.state import StateFolder
from infra.embedded.supervisor import Supervisor
from infra.tasks import end_tasks
from infra.telemetry.logging import configure_terminal

_SERVICE_STOP_SECONDS: Final = 5.0
_DOWN_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1
_ROOT: Final = Path(__file__).parents[1]


@click.command()
@click.option("--detach", is_flag=True, help="Return when everything is ready and go on in the background.")
@click.option("--processes", is_flag=True, help="One process per service, each at an address of its own.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port to be reached at; kept for the next start.")
def up(*, detach: bool, processes: bool, port: int | None) -> None:
    """Start PostgreSQL, Kafka and every service, and keep them running until Ctrl-C."""
    state = StateFolder.open(home())
    try:
        if detach:
            asyncio.run(_up_in_background(state, processes=processes, port=port))
        else:
            with state.exclusive():
                asyncio.run(_up(Installation(state), processes=processes, port=port))
    except AlreadyHeld as held:
        record = RunRecord.read(state)
        if record is None:
            raise CannotStart(
                f"another `kisum up` (process {held.pid}) is starting or stopping in {state.path}"
            ) from held
        click.echo(f"Kisum runs already (process {held.pid}).\n\n{welcome(record)}")


async def _up(installation: Installation, *, processes: bool, port: int | None) -> None:
    configure_terminal()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    supervisor = Supervisor()
    starting = asyncio.create_task(_start(installation, supervisor, processes=processes, port=port))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            record = starting.result()
            record.write(installation.state)
            progress.line(f"\n{welcome(record)}")
            await stopping
        progress.line("Stopping ...")
    finally:
        await end_tasks(starting, stopping)
        RunRecord.remove(installation.state)
        await supervisor.stop_all()
    progress.line("Stopped; everything is kept for the next start.")


async def _start(installation: Installation, supervisor: Supervisor, *, processes: bool, port: int | None) -> RunRecord:
    parts = await installation.parts(processes=processes, port=port)
    await installation.fetch_jars()
    progress.line(f"Starting in {installation.state.path}")
    servers = (("PostgreSQL", installation.postgres), ("Kafka", installation.kafka))
    await asyncio.gather(*(_start_server(name, each.prepare, each.child, supervisor) for name, each in servers))
    with progress.step("databases, topics, rights"):
        await installation.prepare()
    with progress.step("services"):
        await asyncio.gather(*(supervisor.start(_service_child(installation, part)) for part in parts))
    return RunRecord(pid=os.getpid(), parts=parts)


async def _start_server(
    name: str, prepare: Callable[[], Awaitable[None]], child: Callable[[], Child], supervisor: Supervisor
) -> None:
    with progress.step(name):
        await prepare()
        await supervisor.start(child())


def _service_child(installation: Installation, part: Part) -> Child:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KISUM_")}
    for service in load(part.route_groups).values():
        environment |= installation.environment(service, part.address)
    return Child(
        name=part.name,
        argv=(sys.executable, "-m", "cli", "serve", part.name, "--port", str(part.port)),
        env=environment,
        cwd=_ROOT,
        uid=os.geteuid(),
        gid=os.getegid(),
        log_path=installation.state.log_path(f"service-{part.name}"),
        pid_path=installation.state.pid_path(f"service-{part.name}"),
        ready=lambda: is_ready(part),
        stop_timeout_seconds=_SERVICE_STOP_SECONDS,
    )


async def _up_in_background(state: StateFolder, *, processes: bool, port: int | None) -> None:
    if (holder := state.holder_pid()) is not None:
        raise AlreadyHeld(str(state.path), holder)
    arguments = ["--processes"] * processes + (["--port", str(port)] if port else [])
    log_path = state.log_path("up")
    log_path.unlink(missing_ok=True)
    descriptor = os.open(log_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "up", *arguments),
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            env={**os.environ, "KISUM_HOME": str(state.path)},
        )
    finally:
        os.close(descriptor)
    with log_path.open() as log:
        await _follow(process, state, log)


async def _follow(process: asyncio.subprocess.Process, state: StateFolder, log: TextIO) -> None:
    """Show what the background process tells until it is ready, or has given up: then so do we."""
    ended = asyncio.create_task(process.wait())
    while not ended.done():
        record = RunRecord.read(state)
        click.echo(log.read(), nl=False)
        if record is not None and record.pid == process.pid:
            await asyncio.wait({ended}, timeout=_POLL_SECONDS)
            click.echo(log.read() + "It goes on in the background: `kisum status`, `kisum down`.")
            return
        await asyncio.wait({ended}, timeout=_POLL_SECONDS)
    click.echo(log.read(), nl=False)
    sys.exit(await ended or 1)


@click.command()
def down() -> None:
    """Stop everything; all data is kept."""
    state = _existing_state()
    if state is None or (pid := state.holder_pid()) is None:
        click.echo("Kisum is not running.")
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not _is_released(state):
        raise CannotStart(f"process {pid} still runs after {_DOWN_SECONDS:g} s: see {state.log_path('up')}")
    click.echo("Kisum is stopped; everything is kept for the next start.")


def _is_released(state: StateFolder) -> bool:
    deadline = time.monotonic() + _DOWN_SECONDS
    pause = threading.Event()
    while state.holder_pid() is not None and time.monotonic() < deadline:
        pause.wait(_POLL_SECONDS)
    return state.holder_pid() is None


@click.command()
def status() -> None:
    """Say what runs and whether it is ready; exit status 1 where something is not."""
    state = _existing_state()
    record = RunRecord.read(state) if state else None
    if state is None or record is None:
        holder = state.holder_pid() if state else None
        click.echo("Kisum is not running." if holder is None else f"Kisum is starting or stopping (process {holder}).")
        sys.exit(1)
    click.echo(f"Kisum runs (process {record.pid}); state and logs are in {state.path}")
    problems = asyncio.run(_problems(record))
    for service, problem in problems.items():
        click.echo(f"  {service:20} {record.address_of(service):24} {problem or 'ready'}")
    sys.exit(1 if any(problems.values()) else 0)


async def _problems(record: RunRecord) -> dict[str, str | None]:
    asked = [(service, part.address, group) for part in record.parts for service, group in part.route_groups.items()]
    answers = await asyncio.gather(*(problem_of(address, group) for _, address, group in asked))
    return {service: answer for (service, _, _), answer in zip(asked, answers, strict=True)}


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(*, yes: bool) -> None:
    """Delete all data, secrets and logs of this installation."""
    state = _existing_state()
    if state is None:
        click.echo(f"There is nothing in {home()}.")
        return
    if not yes:
        click.confirm(f"Delete everything in {state.path}, all data included?", abort=True)
    state.remove()
    click.echo(f"{state.path} is gone; the next start begins anew.")


def _existing_state() -> StateFolder | None:
    """The state folder, where there is one: asking must not make it."""
    return StateFolder.open(home(), minimum_free_bytes=0) if home().exists() else None
