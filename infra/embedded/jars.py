"""Kafka's jars: which, fetched through jgo, and nothing but the bytes that were pinned."""

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import requests
from jgo.config import GlobalSettings
from jgo.maven import Artifact, MavenContext, PythonResolver

from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder

KAFKA_VERSION = "4.3.1"
PINNED = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.jars")
"""One line per jar: group:artifact:version[:classifier], bytes, SHA-256. Made once from jgo's resolution of
org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36; a start resolves nothing."""

_ATTEMPTS = 3
_DOWNLOADS_AT_ONCE = 8

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in total, from several threads but never from two at a time."""


@dataclass(frozen=True)
class Jar:
    group: str
    artifact: str
    version: str
    classifier: str
    size_bytes: int
    sha256: str

    @property
    def coordinate(self) -> str:
        return ":".join(part for part in (self.group, self.artifact, self.version, self.classifier) if part)


def pinned_jars(path: Path = PINNED) -> list[Jar]:
    jars = []
    for line in path.read_text("ascii").splitlines():
        coordinate, size_bytes, sha256 = line.split()
        group, artifact, version, *classifier = coordinate.split(":")
        jars.append(Jar(group, artifact, version, "".join(classifier), int(size_bytes), sha256))
    return jars


class JarStore:
    """The local Maven repository that jgo and every state folder of this user share; read by jgo's own settings."""

    def __init__(self, pinned: Path = PINNED, repository: Path | None = None) -> None:
        settings = GlobalSettings.load()
        self._jars = pinned_jars(pinned)
        self._mirrors: dict[str, str] | None = settings.repositories or None
        self.repository: Path = repository or settings.repo_cache

    def path_of(self, jar: Jar) -> Path:
        return _path_in(_artifact(jar, MavenContext(repo_cache=self.repository)))

    def missing_bytes(self) -> int:
        """How much is to be downloaded before Kafka can start, in bytes; 0 when it starts offline."""
        return sum(jar.size_bytes for jar in self._missing())

    def fetch(self, partial: Path, progress: Progress | None = None) -> None:
        """Download what is missing, several at once. `partial` is a scratch folder of ours alone.

        A jar enters the repository whole and with the pinned sum, or not at all. Raises CannotStart.
        """
        missing = self._missing()
        if not missing:
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        meter = _Meter(sum(jar.size_bytes for jar in missing), progress)
        context = MavenContext(
            resolver=PythonResolver(progress_callback=meter.track), repo_cache=partial, remote_repos=self._mirrors
        )
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="jars") as pool:
            downloads = [pool.submit(self._fetch_one, jar, context, meter) for jar in missing]
            done, _ = wait(downloads, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        shutil.rmtree(partial)
        for download in done:
            download.result()

    def verified_class_path(self) -> list[Path]:
        """Every jar's path, its bytes compared with the pinned sum. Raises CannotStart at the first other."""
        paths = []
        for jar in self._jars:
            path = self.path_of(jar)
            try:
                found = _sha256(path)
            except FileNotFoundError as error:
                raise CannotStart(f"{path.name} is missing from {path.parent}: run again while online") from error
            except OSError as error:
                raise CannotStart(
                    f"{path} cannot be read ({error.strerror}): correct its mode and run again"
                ) from error
            if found != jar.sha256:
                raise CannotStart(
                    f"{path} is not the pinned {jar.coordinate} (SHA-256 {found[:12]}…, expected {jar.sha256[:12]}…):"
                    " delete it and run again"
                )
            paths.append(path)
        return paths

    def _missing(self) -> list[Jar]:
        return [jar for jar in self._jars if not self.path_of(jar).exists()]

    def _fetch_one(self, jar: Jar, context: MavenContext, meter: "_Meter") -> None:
        downloaded = _download(jar, context, meter)
        found = _sha256(downloaded)
        if found != jar.sha256:
            raise CannotStart(
                f"the registry gave another {jar.coordinate} than the pinned one (SHA-256 {found[:12]}…,"
                f" expected {jar.sha256[:12]}…): check the proxy or mirror in between and run again"
            )
        _move_in(downloaded, self.path_of(jar))


class _Meter:
    """Adds up what several downloads report, for one caller."""

    def __init__(self, total_bytes: int, progress: Progress | None) -> None:
        self._total_bytes = total_bytes
        self._progress = progress
        self._done_bytes: dict[str, int] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def track(self, filename: str, _total_bytes: int) -> Iterator[Callable[[int], None]]:
        def update(count: int) -> None:
            with self._lock:
                self._done_bytes[filename] = self._done_bytes.get(filename, 0) + count
                if self._progress:
                    self._progress(sum(self._done_bytes.values()), self._total_bytes)

        yield update

    def forget(self, filename: str) -> None:
        with self._lock:
            self._done_bytes.pop(filename, None)


def missing_bytes() -> int:
    return JarStore().missing_bytes()


def prepare(state: StateFolder, progress: Progress | None = None) -> None:
    """Make all jars present. Blocks for as long as the download takes; at once, and offline, when all are there."""
    JarStore().fetch(state.path / "download", progress)


def verified_class_path() -> list[Path]:
    return JarStore().verified_class_path()


def _download(jar: Jar, context: MavenContext, meter: _Meter) -> Path:
    artifact = _artifact(jar, context)
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            return Path(artifact.resolve())
        except requests.RequestException as error:
            # jgo writes into the final name: what is left of a broken download would pass for the jar.
            _path_in(artifact).unlink(missing_ok=True)
            meter.forget(artifact.filename)
            if not attempts_left:
                raise CannotStart(
                    f"no network: {jar.coordinate} could not be downloaded ({type(error).__name__}):"
                    " connect this machine to its package registries and run again"
                ) from error
        except (RuntimeError, OSError) as error:
            raise CannotStart(f"{jar.coordinate} could not be downloaded ({error}): run again") from error
    raise AssertionError("the last attempt returns or raises")


def _path_in(artifact: Artifact) -> Path:
    path = artifact.cached_path
    if path is None:
        raise AssertionError("every context here has a repository")
    return Path(path)


def _artifact(jar: Jar, context: MavenContext) -> Artifact:
    return context.project(jar.group, jar.artifact).at_version(jar.version).artifact(jar.classifier, "jar")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _move_in(source: Path, target: Path) -> None:
    # The repository may lie on another disk than the state folder, where a rename alone is not possible.
    partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CannotStart(f"{target} cannot be written ({error.strerror}): correct it and run again") from error
    source.unlink()
