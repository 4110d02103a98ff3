import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from infra.embedded.child import Child
from infra.embedded.errors import CannotStart
from infra.embedded.supervisor import Supervisor
from tests.harness.waiting import wait_until

SERVER = (
    "import os, signal, sys; print('up', flush=True); open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); signal.pause()"
)
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVER


@pytest_asyncio.fixture(loop_scope="session")
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    await supervisor.stop_all()


def child_of(folder: Path, name: str = "server", code: str = SERVER) -> Child:
    started = folder / f"{name}.started"

    async def ready() -> bool:
        return started.exists() and bool(started.read_text())

    return Child(
        name=name,
        argv=(sys.executable, "-c", code, str(started)),
        env={},
        cwd=folder,
        log_path=folder / f"{name}.log",
        pid_path=folder / f"{name}.pid",
        ready=ready,
        uid=os.geteuid(),
        gid=os.getegid(),
    )


async def starts(folder: Path, name: str = "server") -> list[int]:
    return [int(line) for line in (folder / f"{name}.started").read_text().split()]


async def test_it_runs_apart_and_its_output_is_private(supervisor: Supervisor, tmp_path: Path) -> None:
    child = child_of(tmp_path)
    await supervisor.start(child)
    pid = supervisor.pids()["server"]
    assert os.getsid(pid) == pid  # Ctrl-C of our terminal does not reach it
    assert child.log_path.read_text() == "up\n"
    assert child.log_path.stat().st_mode & 0o777 == 0o600
    assert json.loads(child.pid_path.read_text())["pid"] == pid
    await supervisor.stop_all()
    assert not psutil.pid_exists(pid)
    assert not child.pid_path.exists()


async def test_a_killed_child_is_restarted(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start(child_of(tmp_path))
    for count in (2, 3):
        os.kill(supervisor.pids()["server"], signal.SIGKILL)

        async def started(count: int = count) -> list[int]:
            pids = await starts(tmp_path)
            return pids if len(pids) == count else []

        pids = await wait_until(started, bool, describe="a restart")
        assert len(set(pids)) == count


async def test_a_child_that_ends_is_refused_with_its_last_line(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="server ended with code 3: the reason") as refusal:
        await supervisor.start(child_of(tmp_path, code="print('the reason'); raise SystemExit(3)"))
    assert "\n" not in str(refusal.value)
    assert supervisor.pids() == {}


async def test_a_child_that_is_not_ready_in_time_is_stopped(supervisor: Supervisor, tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    with pytest.raises(CannotStart, match="not ready within 1 s"):
        await supervisor.start(replace(child_of(tmp_path), ready=never, ready_timeout_seconds=1.0))
    assert not any(psutil.pid_exists(pid) for pid in await starts(tmp_path))


async def test_all_stop_in_reverse_order_and_in_time_even_the_deaf(supervisor: Supervisor, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        await supervisor.start(child_of(tmp_path, name, DEAF if name == "second" else SERVER))
    pids = supervisor.pids()
    assert list(pids) == ["first", "second", "third"]
    began = time.monotonic()
    await supervisor.stop_all(timeout_seconds=4.0)
    assert time.monotonic() - began < 4.0
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


SUPERVISING = """
import asyncio, sys
from pathlib import Path
from tests.integration.embedded.test_supervisor import DEAF, child_of
from infra.embedded.supervisor import Supervisor

async def main():
    supervisor = Supervisor()
    await supervisor.start(child_of(Path(sys.argv[1])))
    print(supervisor.pids()["server"], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISING, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = psutil.Process(int(await asyncio.to_thread(process.stdout.readline)))
        process.kill()
        process.wait()

    async def alive() -> bool:
        return bool(child.is_running() and child.status() != psutil.STATUS_ZOMBIE)

    await wait_until(alive, lambda yes: not yes, describe="the child's end", timeout_seconds=5)


async def test_an_orphan_is_stopped_before_its_successor_starts(supervisor: Supervisor, tmp_path: Path) -> None:
    earlier = Supervisor()
    await earlier.start(child_of(tmp_path))
    orphan = psutil.Process(earlier.pids()["server"])
    await supervisor.start(child_of(tmp_path))
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    await earlier.stop_all()


def test_idle_it_costs_nothing(tmp_path: Path) -> None:
    """Nothing wakes it by itself: on a loop of its own, no timer is set once its child is ready."""

    async def timers_while_idle() -> list[asyncio.TimerHandle]:
        supervisor = Supervisor()
        await supervisor.start(child_of(tmp_path))
        try:
            await asyncio.sleep(0)
            scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
            return [handle for handle in scheduled if not handle.cancelled()]
        finally:
            await supervisor.stop_all()

    assert asyncio.run(timers_while_idle()) == []
