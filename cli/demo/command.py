import asyncio
import json
import signal
import sys
import time
import traceback
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
import httpx
import uvloop

from cli import progress
from cli.demo.containers import running_containers
from cli.demo.poller import UnexpectedAnswerError
from cli.demo.steps import STEPS
from cli.demo.story import BOUND_SETTINGS, Story
from cli.demo.system import System, own_home, running_processes
from cli.demo.waiting import StepFailedError

#: Instead of 45 s for writes and 300 s for reading: long enough to start Auth again, short enough to be watched.
_BOUND_SECONDS: Final = 10.0
_REQUEST_TIMEOUT_SECONDS: Final = 30.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Step:
    """What a step came to. `ms` is what it measured, or how long it took."""

    name: str
    ok: bool
    ms: float
    detail: str


@click.command()
@click.option("--json", "report", type=click.Path(dir_okay=False, path_type=Path), help="Write the outcome to FILE.")
@click.option("--containers", is_flag=True, help="Tell it on docker-compose.yml, against the gateway.")
@click.option("--cluster", is_flag=True, help="With --containers: three brokers, two of each service.")
def demo(*, report: Path | None, containers: bool, cluster: bool) -> None:
    """Tell the story from purchase to revocation and outage, on an installation of its own that it starts and stops."""
    if cluster and not containers:
        raise click.UsageError("--cluster is a choice of --containers; without them there is one broker")
    begun = time.monotonic()
    steps: list[Step] = []
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_demo(steps, _started(containers=containers, cluster=cluster)))
    except asyncio.CancelledError:
        progress.line("Interrupted; what was started is stopped.")
    finally:
        ok = len(steps) == len(STEPS) and all(step.ok for step in steps)
        if report is not None:
            document = {"ok": ok, "steps": [asdict(step) for step in steps]}
            report.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    progress.line(f"\n{'All is as told' if ok else 'The demo failed'}, after {time.monotonic() - begun:.0f} s.")
    sys.exit(0 if ok else 1)


def _started(*, containers: bool, cluster: bool) -> AbstractAsyncContextManager[System]:
    settings = dict.fromkeys(BOUND_SETTINGS, f"{_BOUND_SECONDS:g}")
    if containers:
        return running_containers(own_home("demo-containers"), settings, cluster=cluster)
    return running_processes(own_home("demo"), settings)


async def _demo(steps: list[Step], started: AbstractAsyncContextManager[System]) -> None:
    _stop_in_order_when_told()
    progress.line(f"In this run Finance answers 503 once its access state is older than {_BOUND_SECONDS:g} s:")
    for name in BOUND_SETTINGS:
        progress.line(f"  {name}={_BOUND_SECONDS:g}")
    async with (
        started as system,
        # A proxy in the environment is for other hosts.
        httpx.AsyncClient(trust_env=False, timeout=_REQUEST_TIMEOUT_SECONDS) as http,
    ):
        progress.line("")
        await _tell(Story(system, http, bound_seconds=_BOUND_SECONDS), steps)
        progress.line("")


def _stop_in_order_when_told() -> None:
    """Cancel the calling task at the first signal, and let no further one interrupt what it then stops."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    if task is None:
        raise AssertionError("called from a task")

    def cancel() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, cancel)


async def _tell(story: Story, steps: list[Step]) -> None:
    """Go on until a step fails: each one needs what the ones before it left."""
    for step in STEPS:
        name = step.__name__
        begun = time.perf_counter()
        quoted: tuple[str, ...] = ()
        try:
            told = await step(story)
        except (StepFailedError, UnexpectedAnswerError, httpx.HTTPError, OSError, EOFError, LookupError) as error:
            if not isinstance(error, StepFailedError):
                traceback.print_exc()
            ok, ms, detail = False, None, f"{type(error).__name__}: {error}"
        else:
            ok, ms, detail, quoted = True, told.ms, told.detail, told.quoted
        ms = (time.perf_counter() - begun) * 1000 if ms is None else ms
        steps.append(Step(name, ok, round(ms, 3), " ".join((detail, *quoted))))
        progress.line(f"  {'ok ' if ok else 'NOT'} {name:22} {ms:9.1f} ms  {detail}")
        for line in quoted:
            progress.line(f"{'':42}| {line}")
        if not ok:
            return
