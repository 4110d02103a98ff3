"""`kisum up`, `down`, `status`, `reset`."""

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import click

from cli import progress
from cli.here import home
from cli.installation import Installation
from cli.registry import load
from cli.restore import held_back
from cli.running import NOT_READY_STATUS, Part, RunRecord, is_living, problems_of
from cli.welcome import ACCOUNT_BEGINS, not_ready, problem_lines, welcome
from infra.embedded.child import Child, last_line
from infra.embedded.errors import AlreadyHeld, CannotStart
from infra.embedded.state import StateFolder
from infra.embedded.supervisor import Supervisor
from infra.tasks import end_tasks
from infra.telemetry.logging import configure_terminal

_SERVICE_STOP_SECONDS: Final = 5.0
_DOWN_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1
#: Each look at readiness is a request to every service, and a line in its log.
_READINESS_POLL_SECONDS: Final = 0.25
_READY_SECONDS: Final = 60.0
#: Who waits longer than this is told for what, and it is looked at less often.
_SHORT_WAIT_SECONDS: Final = 10.0
_LONG_WAIT_POLL_SECONDS: Final = 2.0
_ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class _Asked:
    """What `up` was asked for."""

    processes: bool
    port: int | None
    ready_seconds: float


@click.command()
@click.option("--detach", is_flag=True, help="Return when everything is ready and go on in the background.")
@click.option("--processes", is_flag=True, help="One process per service, each at an address of its own.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port to be reached at; kept for the next start.")
@click.option(
    "--wait",
    "ready_seconds",
    type=click.FloatRange(min=0),
    default=_READY_SECONDS,
    show_default=True,
    help="How many seconds services that run have to become ready.",
)
def up(*, detach: bool, processes: bool, port: int | None, ready_seconds: float) -> None:
    """Start PostgreSQL, Kafka and every service, and keep them running until Ctrl-C.

    A service that answers and does not become ready in time is named with its reason, and everything goes on: whatever
    it waits for can still come. With --detach the exit status is then 3; it is 1 where the start failed and nothing
    runs.
    """
    state = StateFolder.open(home())
    asked = _Asked(processes=processes, port=port, ready_seconds=ready_seconds)
    try:
        if detach:
            sys.exit(asyncio.run(_up_in_background(state, asked)))
        else:
            with state.exclusive():
                asyncio.run(_up(Installation(state), asked))
    except AlreadyHeld as held:
        record = RunRecord.read(state)
        if record is None:
            raise CannotStart(
                f"another `kisum up` (process {held.pid}) is starting or stopping in {state.path}"
            ) from held
        # What was killed a moment ago is being started again.
        problems = asyncio.run(_ready_within(asked.ready_seconds, Installation(state), record.parts))
        click.echo(f"Kisum runs already (process {held.pid}).\n\n{_account(record, problems)}")
        sys.exit(NOT_READY_STATUS if any(problems.values()) else 0)


async def _up(installation: Installation, asked: _Asked) -> None:
    configure_terminal()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    supervisor = Supervisor()
    running = asyncio.create_task(_run(installation, supervisor, asked))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
            await stopping
        progress.line("Stopping ...")
    finally:
        await end_tasks(running, stopping)
        RunRecord.remove(installation.state)
        await supervisor.stop_all()
    progress.line("Stopped; everything is kept for the next start.")


async def _run(installation: Installation, supervisor: Supervisor, asked: _Asked) -> None:
    """Start everything, and return when it was told that all is ready. Raises CannotStart."""
    parts = await _start(installation, supervisor, asked)
    problems = await _ready_within(asked.ready_seconds, installation, parts)
    is_ready = not any(problems.values())
    if not is_ready:
        await _require_life(installation, parts)
    record = RunRecord(pid=os.getpid(), parts=parts, was_ready=is_ready)
    record.write(installation.state)
    progress.line(f"\n{_account(record, problems)}")
    if not is_ready:
        await _ready_within(math.inf, installation, parts)
        progress.line(f"\n{welcome(record)}")


async def _require_life(installation: Installation, parts: Iterable[Part]) -> None:
    """Raises CannotStart where a process answered once, and neither it nor its successor does now."""
    for part in parts:
        if not await is_living(part):
            log_path = installation.state.log_path(f"service-{part.name}")
            raise CannotStart(
                f"service {part.name} does not answer any more: {last_line(log_path)} (all in {log_path})"
            )


async def _start(installation: Installation, supervisor: Supervisor, asked: _Asked) -> tuple[Part, ...]:
    parts = await installation.parts(processes=asked.processes, port=asked.port)
    await installation.fetch_jars()
    progress.line(f"Starting in {installation.state.path}")
    servers = (("PostgreSQL", installation.postgres), ("Kafka", installation.kafka))
    await asyncio.gather(*(_start_server(name, each.prepare, each.child, supervisor) for name, each in servers))
    with progress.step("databases, topics, rights"):
        await installation.prepare()
    with progress.step("services", "answer"):
        await asyncio.gather(*(supervisor.start(_service_child(installation, part)) for part in parts))
    return parts


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
        name=f"service {part.name}",
        argv=(
            *(sys.executable, "-m", "cli", "serve", part.name),
            *("--port", str(part.port), "--metrics-port", str(part.metrics_port)),
        ),
        env=environment,
        cwd=_ROOT,
        uid=os.geteuid(),
        gid=os.getegid(),
        log_path=installation.state.log_path(f"service-{part.name}"),
        pid_path=installation.state.pid_path(f"service-{part.name}"),
        ready=lambda: is_living(part),
        stop_timeout_seconds=_SERVICE_STOP_SECONDS,
    )


async def _ready_within(seconds: float, installation: Installation, parts: Iterable[Part]) -> dict[str, str | None]:
    """Wait until every service is ready and publishes, or so long. Returns each service with why it does not."""
    begun, is_told = time.monotonic(), False
    while True:
        problems = await problems_of(parts)
        waited_seconds = time.monotonic() - begun
        is_over, is_long = waited_seconds >= seconds, waited_seconds > _SHORT_WAIT_SECONDS
        tells = is_long and not is_told and seconds < math.inf
        if is_over or tells or not any(problems.values()):
            # It asks each owner's database, and so only when the answer is used.
            problems = await _with_what_is_held_back(installation, problems)
        if is_over or not any(problems.values()):
            return problems
        if tells:
            progress.line(f"Waiting, {seconds:g} s at most:\n{problem_lines(problems)}")
            is_told = True
        await asyncio.sleep(_LONG_WAIT_POLL_SECONDS if is_long else _READINESS_POLL_SECONDS)


async def _problems(installation: Installation, parts: Iterable[Part]) -> dict[str, str | None]:
    """Each service with why it is not ready, or publishes nothing; or None."""
    return await _with_what_is_held_back(installation, await problems_of(parts))


async def _with_what_is_held_back(
    installation: Installation, problems: Mapping[str, str | None]
) -> dict[str, str | None]:
    restored = await held_back(installation, problems)
    return {
        service: "; ".join(filter(None, (problem, restored.get(service)))) or None
        for service, problem in problems.items()
    }


def _account(record: RunRecord, problems: Mapping[str, str | None]) -> str:
    return not_ready(problems) if any(problems.values()) else welcome(record)


async def _up_in_background(state: StateFolder, asked: _Asked) -> int:
    """Returns the exit status."""
    if (holder := state.holder_pid()) is not None:
        raise AlreadyHeld(str(state.path), holder)
    arguments = ["--processes"] * asked.processes + (["--port", str(asked.port)] if asked.port else [])
    arguments += ["--wait", str(asked.ready_seconds)]
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
        return await _follow(process, state, log)


async def _follow(process: asyncio.subprocess.Process, state: StateFolder, log: TextIO) -> int:
    """Show what the background process tells until its services run, or it has given up: then so do we."""
    ended = asyncio.create_task(process.wait())
    is_accounted = False
    while not ended.done():
        record = RunRecord.read(state)
        told = log.read()
        click.echo(told, nl=False)
        # The record comes first, so that it is there for who reads the account.
        is_accounted = is_accounted or f"\n{ACCOUNT_BEGINS}" in told
        if is_accounted and record is not None and record.pid == process.pid:
            click.echo("It goes on in the background: `kisum status`, `kisum down`.")
            return 0 if record.was_ready else NOT_READY_STATUS
        await asyncio.wait({ended}, timeout=_POLL_SECONDS)
    click.echo(log.read(), nl=False)
    return await ended or 1


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
    """Say what runs, whether it is ready, and why not; exit status 1 where something is not."""
    state = _existing_state()
    record = RunRecord.read(state) if state else None
    if state is None or record is None:
        holder = state.holder_pid() if state else None
        click.echo("Kisum is not running." if holder is None else f"Kisum is starting or stopping (process {holder}).")
        sys.exit(1)
    click.echo(f"Kisum runs (process {record.pid}); state and logs are in {state.path}")
    problems = asyncio.run(_problems(Installation(state), record.parts))
    for service, problem in problems.items():
        click.echo(f"  {service:20} {record.address_of(service):24} {problem or 'ready'}")
    sys.exit(1 if any(problems.values()) else 0)


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
