"""The folder of an access cache, which all processes of one service on a machine share.

`lock` is held by the one that writes. The kernel lets go of it when the process ends, however it ends, and the next one
takes it. Every identity (boot, format, contracts, what is kept) has its own environment beside it, so that nobody ever
opens a file that another boot or version wrote.
"""

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"
_ENVIRONMENT_NAME_LENGTH: Final = 32
#: Always so long, so that a reader never finds one text's end behind another's.
_HOLDER_BYTES: Final = 128


class NoCacheError(Exception):
    """There is no cache in a folder; the message names it."""


@dataclass(frozen=True)
class Holder:
    """Who wrote last, and in which environment. `is_writing` while it still holds the lock."""

    pid: int
    environment: Path
    is_writing: bool


class CacheFolder:
    """One process's part in a folder. Raises OSError where the folder cannot be used."""

    def __init__(self, path: Path, identity: str) -> None:
        """`identity` is a hexadecimal hash; processes with the same one share an environment."""
        self._path = path
        self._lock: int | None = None
        self.environment = path / identity[:_ENVIRONMENT_NAME_LENGTH]

    def open(self) -> None:
        """Make what is missing. Who finds the lock free takes it, and throws away what was of another identity."""
        self._path.mkdir(parents=True, mode=0o700, exist_ok=True)
        if self.lock():
            for other in self._path.iterdir():
                if other.name == _LOCK or other == self.environment:
                    continue
                if other.is_dir():
                    shutil.rmtree(other)
                else:
                    other.unlink()
        self.environment.mkdir(mode=0o700, exist_ok=True)

    @property
    def is_locked(self) -> bool:
        """Whether this process holds the lock."""
        return self._lock is not None

    def lock(self) -> bool:
        """Take the lock. False where another process has it."""
        if self._lock is not None:
            return True
        descriptor = os.open(self._path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        told = json.dumps({"pid": os.getpid(), "environment": self.environment.name})
        os.pwrite(descriptor, told.ljust(_HOLDER_BYTES).encode(), 0)
        self._lock = descriptor
        return True

    def unlock(self) -> None:
        """Let go of the lock; a second call does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def holder_of(path: Path) -> Holder:
    """Who writes, or wrote, in a folder. Raises NoCacheError."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(path / _LOCK, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            told = json.loads(os.pread(descriptor, _HOLDER_BYTES, 0))
            environment = path / told["environment"]
        except (OSError, ValueError):
            raise NoCacheError(f"there is no access cache in {path}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Holder(told["pid"], environment, is_writing=True)
        return Holder(told["pid"], environment, is_writing=False)
