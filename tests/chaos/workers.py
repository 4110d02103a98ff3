"""Two workers of Finance on one cache, a random process killed every second."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Final

import psutil

from access.folder import NoCacheError, holder_of
from cli.demo.story import MODULE
from cli.demo.system import Processes
from infra.embedded.child import running_pid
from tests.chaos.ground import Ground, ground
from tests.chaos.outcome import Outcome, judge, kill_under_load
from tests.chaos.people import is_set_within

_WORKERS: Final = 2
_KILL_SECONDS: Final = 1.0
_MEMBERS: Final = 16
#: What is killed how often, of a hundred times.
_VICTIMS: Final = {"worker": 80, "writer": 14, "auth": 3, "entitlements": 3}


async def workers(folder: Path, seed: int, minutes: float) -> Outcome:
    """Finance's two workers, and now and then Auth or Core, under kill -9 while rights are given and taken away."""
    outcome = Outcome()
    async with ground(folder, seed, members=_MEMBERS, settings={"KISUM_FINANCE_WORKERS": f"{_WORKERS}"}) as here:
        await kill_under_load(here, outcome, minutes, _kill_until)
        judge(here, outcome)
    return outcome


async def _kill_until(over: asyncio.Event, here: Ground[Processes], killed: Counter[str]) -> None:
    while not await is_set_within(over, _KILL_SECONDS):
        (name,) = here.random.choices(list(_VICTIMS), list(_VICTIMS.values()))
        pid = _victim(here, name)
        if pid is None:
            killed["nobody was there"] += 1
            continue
        try:
            os.kill(pid, signal.SIGKILL)
            killed[name] += 1
        except ProcessLookupError:
            killed["nobody was there"] += 1


def _victim(here: Ground[Processes], name: str) -> int | None:
    if name == "worker":
        there = _worker_pids(here)
        return here.random.choice(there) if there else None
    if name == "writer":
        try:
            holder = holder_of(here.system.access_folder(MODULE))
        except NoCacheError:
            return None
        return holder.pid if holder.is_writing and holder.pid in _worker_pids(here) else None
    return running_pid(here.system.state.pid_path(f"service-{name}"))


def _worker_pids(here: Ground[Processes]) -> list[int]:
    """The workers there are now: what Finance's own process has started to serve."""
    pid = running_pid(here.system.state.pid_path(f"service-{MODULE}"))
    found = []
    try:
        children = psutil.Process(pid).children() if pid is not None else []
    except psutil.NoSuchProcess:
        return []
    for child in children:
        try:
            line = " ".join(child.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if "spawn_main" in line:
            found.append(child.pid)
    return sorted(found)
