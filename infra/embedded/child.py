"""Server processes: how one is described, recognised after its supervisor is gone, and stopped."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from infra.embedded.state import write_private

_LOG_KEPT_BYTES = 16 << 20


@dataclass(frozen=True)
class Child:
    """One process that the supervisor runs.

    `ready` answers whether the process does its work now, not whether it exists; it may raise CannotStart where
    waiting would not help. `argv[0]` is an absolute path. `stop_signal` is also what the kernel sends when the
    supervisor dies. `clear` is awaited before every start, to remove what a killed predecessor left in the way.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log_path: Path
    pid_path: Path
    ready: Callable[[], Awaitable[bool]]
    uid: int
    gid: int
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_seconds: float = 8.0
    ready_timeout_seconds: float = 60.0
    clear: Callable[[], Awaitable[None]] | None = None


async def launch(child: Child) -> asyncio.subprocess.Process:
    """Start the process in a session of its own, so that Ctrl-C reaches the supervisor only, and record its pid."""
    if child.clear:
        await child.clear()
    process = await _spawn(child.argv, child.env, child.cwd, child.log_path, child.uid, child.gid, child.stop_signal)
    write_private(child.pid_path, json.dumps({"pid": process.pid, "started": _started(process.pid)}))
    return process


async def run(argv: tuple[str, ...], env: Mapping[str, str], cwd: Path, log_path: Path, uid: int, gid: int) -> int:
    """Run a program to its end under the same conditions. Returns its exit code; killed with it when cancelled."""
    process = await _spawn(argv, env, cwd, log_path, uid, gid, signal.SIGKILL)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


async def stop(process: asyncio.subprocess.Process, stop_signal: signal.Signals, timeout_seconds: float) -> bool:
    """Ask, wait, then kill. Returns whether asking was enough."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(stop_signal)
    try:
        async with asyncio.timeout(timeout_seconds):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return False
    return True


def running_pid(pid_path: Path) -> int | None:
    """The recorded process if it still runs; None for a stale file, also where its number was given to another."""
    try:
        recorded = json.loads(pid_path.read_text("utf-8"))
        pid = int(recorded["pid"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    started = _started(pid)
    return pid if started is not None and started == recorded.get("started") else None


async def stop_orphan(pid_path: Path, stop_signal: signal.Signals, timeout_seconds: float = 5.0) -> None:
    """Stop what an earlier supervisor left running, and forget it."""
    pid = running_pid(pid_path)
    if pid is not None:
        await stop_processes([psutil.Process(pid)], stop_signal, timeout_seconds)
    pid_path.unlink(missing_ok=True)  # noqa: ASYNC240  one system call


async def stop_processes(processes: list[psutil.Process], stop_signal: signal.Signals, timeout_seconds: float) -> None:
    """The same for processes that are not our children, whose end can only be asked for."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(stop_signal)
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout_seconds)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    await asyncio.to_thread(psutil.wait_procs, alive, timeout_seconds)


def last_line(log_path: Path) -> str:
    """The last line of a log that says something; empty when there is none."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


async def _spawn(
    argv: tuple[str, ...],
    env: Mapping[str, str],
    cwd: Path,
    log_path: Path,
    uid: int,
    gid: int,
    death_signal: signal.Signals,
) -> asyncio.subprocess.Process:
    with _open_log(log_path) as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-IS",
            str(Path(__file__).with_name("launch.py")),
            *map(str, (int(death_signal), os.getpid(), uid, gid)),
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def _open_log(path: Path) -> IO[bytes]:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_KEPT_BYTES:
            path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def _started(pid: int) -> str | None:
    """When a process began, as the kernel counts: ticks of this boot, which no change of the clock moves."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = fields.rpartition(")")[2].split()  # the name in parentheses may contain anything
    return None if state == "Z" else f"{boot} {rest[18]}"
