"""What would stop a start, looked at without starting or changing anything: `kisum doctor`."""

import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.embedded.child import running_pid
from infra.embedded.errors import CannotStart
from infra.embedded.jars import JarStore
from infra.embedded.state import MINIMUM_FREE_BYTES, StateFolder, is_free

MINIMUM_MEMORY_BYTES = 1 << 30
_OLDEST, _NEWEST = (3, 11), (3, 14)
_EARLIEST_SANE_TIME = 1_790_000_000  # September 2026, before this was written: an earlier clock was never set


@dataclass(frozen=True)
class Check:
    """One fact; `ok` is false only where it would stop a start."""

    name: str
    ok: bool
    detail: str


def checks(state_path: Path) -> list[Check]:
    """Every check, in the order in which a start would meet them. Takes as long as hashing the jars, about 50 ms."""
    return [_python(), _machine(), _memory(), _clock(), _disk(state_path), _jars(), *_state(state_path)]


def _python() -> Check:
    found = sys.version_info[:2]
    return Check("python", _OLDEST <= found <= _NEWEST, f"{platform.python_version()}, 3.11 to 3.14 are supported")


def _machine() -> Check:
    library, version = platform.libc_ver()
    supported = (sys.platform, platform.machine(), library) == ("linux", "x86_64", "glibc")
    detail = f"{platform.system()} {platform.machine()}, {library or 'C library unknown'} {version}".rstrip()
    return Check("machine", supported, detail if supported else f"{detail}; Linux x86_64 with glibc is supported")


def _memory() -> Check:
    available = int(psutil.virtual_memory().available)
    needed = f"{MINIMUM_MEMORY_BYTES >> 20} MB needed"
    return Check("memory", available >= MINIMUM_MEMORY_BYTES, f"{available >> 20} MB available, {needed}")


def _clock() -> Check:
    now = time.time()
    return Check("clock", now > _EARLIEST_SANE_TIME, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))


def _disk(state_path: Path) -> Check:
    existing = next(path for path in (state_path.absolute(), *state_path.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return Check(
        "disk", free >= MINIMUM_FREE_BYTES, f"{free >> 20} MB free at {existing}, {MINIMUM_FREE_BYTES >> 20} MB needed"
    )


def _jars() -> Check:
    store = JarStore()
    missing_bytes = store.missing_bytes()
    if missing_bytes:
        return Check("jars", True, f"{missing_bytes / 1e6:.1f} MB to download into {store.repository}")
    try:
        paths = store.verified_class_path()
    except CannotStart as error:
        return Check("jars", False, str(error))
    return Check("jars", True, f"{len(paths)} present in {store.repository} and unchanged")


def _state(state_path: Path) -> list[Check]:
    if not state_path.exists():
        parent = state_path.absolute().parent
        if os.access(parent, os.W_OK | os.X_OK):
            return [Check("state folder", True, f"{state_path} will be made")]
        return [Check("state folder", False, f"{state_path} cannot be made: {parent} is absent or not writable")]
    if not any(state_path.iterdir() if state_path.is_dir() and os.access(state_path, os.R_OK) else ()):
        return [Check("state folder", state_path.is_dir() and os.access(state_path, os.W_OK), f"{state_path} is empty")]
    try:
        state = StateFolder.open(state_path, minimum_free_bytes=0)
    except CannotStart as error:
        return [Check("state folder", False, str(error))]
    holder = state.holder_pid()
    return [
        Check("state folder", True, f"{state.path} is writable"),
        Check("lock", True, f"held by process {holder}" if holder is not None else "free"),
        *_ports(state, holder),
        *_pid_files(state),
    ]


def _ports(state: StateFolder, holder: int | None) -> list[Check]:
    found = []
    for name, port in sorted(state.ports().items()):
        free = is_free(port)
        # PostgreSQL's and Kafka's ports are nobody's business: the next start chooses others. So never a failure.
        detail = "free" if free else ("in use" if holder is not None else "taken by another process")
        found.append(Check(f"port {name}", True, f"{port} {detail}"))
    return found


def _pid_files(state: StateFolder) -> list[Check]:
    found = []
    for path in sorted(state.folder("run").glob("*.pid")):
        pid = running_pid(path)
        detail = f"runs as {pid}" if pid is not None else "stale pid file, the next start removes it"
        found.append(Check(f"process {path.stem}", True, detail))
    return found
