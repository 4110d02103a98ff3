"""The state folder (`KISUM_HOME`): what a run must find again, and who works on it."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.embedded.errors import AlreadyHeld, CannotStart

FORMAT = 1
"""Layout of the folder. Raised by a change that older code would misread."""

MINIMUM_FREE_BYTES = 1 << 30
OUTSIDE = Path("/var/lib/kisum")
"""Where root keeps what an unprivileged server process must reach (see `infra.embedded.postgres`)."""

# Below the kernel's default range for outgoing connections: a port recorded today must not be somebody's
# outgoing connection tomorrow.
_PORTS = range(20_000, 32_000)
_BEFORE_FIRST_RECORD = {"lock", "lock.turn"}


class StateFolder:
    """One installation's files, all private to their owner: folders 0700, files 0600. Open it with `open`."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self._record = record

    @classmethod
    def open(cls, path: Path, *, minimum_free_bytes: int = MINIMUM_FREE_BYTES) -> "StateFolder":
        """Open the folder, creating it if absent. Raises CannotStart and changes nothing if it cannot be used."""
        path = path.absolute()
        if not path.exists():
            _make_folder(path)
        path = path.resolve()
        _check_ours(path)
        free_bytes = shutil.disk_usage(path).free
        if free_bytes < minimum_free_bytes:
            raise CannotStart(
                f"{path} has {free_bytes >> 20} MB of free disk and {minimum_free_bytes >> 20} MB are needed:"
                " free some, or set KISUM_HOME to another disk"
            )
        record_path = path / "state.json"
        if record_path.exists():
            record = _read_record(record_path)
        else:
            entries = {entry.name for entry in path.iterdir() if not entry.name.startswith(".partial-")}
            if entries - _BEFORE_FIRST_RECORD:
                # `reset` removes this folder: it must never be one that somebody else filled.
                raise CannotStart(
                    f"{path} holds files that are not Kisum's: set KISUM_HOME to a new or an empty folder"
                )
            record = {"format": FORMAT, "id": secrets.token_hex(8), "ports": {}, "outside": {}}
            write_private(record_path, json.dumps(record, indent=1))
        path.chmod(0o700)
        return cls(path, record)

    def folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def log_path(self, name: str) -> Path:
        return self.folder("logs") / f"{name}.log"

    def pid_path(self, name: str) -> Path:
        return self.folder("run") / f"{name}.pid"

    def secret(self, name: str) -> str:
        """A password or key of 256 bits, made on first use and then always the same."""
        path = self.folder("secrets") / name
        with contextlib.suppress(FileNotFoundError):
            return path.read_text("ascii")
        # A link appears with its content or not at all, and never replaces a secret that is in use.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".partial-", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
        _synchronise(path.parent)
        return path.read_text("ascii")

    def port(self, name: str) -> int:
        """The recorded port of 127.0.0.1 for `name`; a free one is chosen and recorded on first use."""
        recorded = self._record["ports"].get(name)
        return int(recorded) if recorded is not None else self.new_port(name)

    def free_port(self, name: str) -> int:
        """Like `port`, but a recorded port on which something listens is given up for a new one.

        For a process that is about to start, after an orphan of its last run was stopped.
        """
        port = self.port(name)
        return port if is_free(port) else self.new_port(name)

    def new_port(self, name: str) -> int:
        taken = set(self._record["ports"].values())
        candidates = [port for port in _PORTS if port not in taken]
        secrets.SystemRandom().shuffle(candidates)
        for port in candidates:
            if is_free(port):
                self.record_port(name, port)
                return port
        raise CannotStart(f"no free port on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop}: stop what holds them")

    def record_port(self, name: str, port: int) -> None:
        self._record["ports"][name] = port
        self._save()

    def ports(self) -> dict[str, int]:
        """Every recorded port by name."""
        return dict(self._record["ports"])

    @property
    def identity(self) -> str:
        """Made with the folder, so that what lies outside of it is never taken for that of a successor."""
        return str(self._record["id"])

    def outside(self, name: str) -> Path | None:
        """The folder of `name` that lies outside of the state folder, if one was recorded."""
        recorded = self._record["outside"].get(name)
        return Path(recorded) if recorded is not None else None

    def record_outside(self, name: str, path: Path) -> None:
        """Recorded before the folder is made, so that `remove` finds it whatever happens in between."""
        self._record["outside"][name] = str(path)
        self._save()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder for this process, to its end if need be. Raises AlreadyHeld, naming the holder."""
        with self._turn():
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                pid = int(os.pread(descriptor, 20, 0) or b"0")
                os.close(descriptor)
                raise AlreadyHeld(str(self.path), pid) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        try:
            yield
        finally:
            os.close(descriptor)

    def holder_pid(self) -> int | None:
        """The process that holds the folder. A number left behind by a dead process is not an answer: the lock is."""
        with self._turn():
            try:
                descriptor = os.open(self.path / "lock", os.O_RDONLY)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(os.pread(descriptor, 20, 0) or b"0")
            else:
                return None
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Delete the folder and what was recorded as lying outside of it. Raises AlreadyHeld while it is in use."""
        with self.exclusive():
            for recorded in self._record["outside"].values():
                path = Path(recorded)
                if path.parent != OUTSIDE:
                    raise CannotStart(
                        f"{self.path / 'state.json'} names {path}, which is not Kisum's: nothing was removed"
                    )
                if path.exists():
                    shutil.rmtree(path)
            shutil.rmtree(self.path)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        # Asking who holds the lock takes it for an instant; without turns, that instant would refuse a start.
        descriptor = os.open(self.path / "lock.turn", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _save(self) -> None:
        write_private(self.path / "state.json", json.dumps(self._record, indent=1))


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # Servers set it too: connections of a stopped server that still linger do not make its port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
        return True


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError as error:
        raise CannotStart(f"{path} cannot be made, {path.parent} does not exist: make it or set KISUM_HOME") from error
    except FileExistsError:
        return  # another start made it in between; the lock decides between the two
    except OSError as error:
        raise CannotStart(f"{path} cannot be made ({error.strerror}): set KISUM_HOME to a writable place") from error


def _check_ours(path: Path) -> None:
    if not path.is_dir():
        raise CannotStart(f"{path} is not a folder: set KISUM_HOME to one")
    owner = path.stat().st_uid
    if owner != os.geteuid():
        # As root one could write here, but the owner could then no longer use the folder.
        raise CannotStart(
            f"{path} belongs to user id {owner}, not to {os.geteuid()}: run as that user or set KISUM_HOME"
        )
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return  # said with figures by the caller
        raise CannotStart(f"{path} is not writable ({error.strerror}): set KISUM_HOME to a writable place") from error


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text("utf-8"))
        written_format = int(record["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CannotStart(f"{path} is not readable ({error}): restore it, or `kisum reset` to start anew") from error
    if written_format > FORMAT:
        raise CannotStart(
            f"{path.parent} was written by a newer Kisum (format {written_format}, this one knows {FORMAT}):"
            " use the newer one or set KISUM_HOME"
        )
    return dict(record)


def write_private(path: Path, text: str) -> None:
    """Replace a file of mode 0600 in one step: a reader, or a start after a power cut, sees the old or the new text."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)  # noqa: PTH105  mkstemp gives a str
    except OSError as error:
        Path(partial).unlink(missing_ok=True)
        raise CannotStart(f"{path} cannot be written ({error.strerror}): free disk or set KISUM_HOME") from error
    _synchronise(path.parent)


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
