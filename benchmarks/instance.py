"""One instance of a service's access path, as a process of its own: what it uses of memory is nobody else's.

As a program it is given a JSON object (folder, kafka), runs the access path as a service does, and tells when it is
ready and what it took.
"""

import asyncio
import dataclasses
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from access.freshness import OWNERS
from access.path import AccessPath
from benchmarks.programs import given, program, tell, told, until_input_ends
from benchmarks.reference import MODULE
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from infra.tasks import end_tasks
from infra.telemetry.logging import configure_logging
from tests.harness.access import ROOT_KEY

_LOOK_SECONDS: Final = 0.005
#: Who was away for longer has heard both owners again once no age is above it.
_AGE_MAX_SECONDS: Final = 3.0
_MEGABYTE: Final = 1_000_000
_KILOBYTE: Final = 1024


@dataclass(frozen=True)
class Instance:
    """A cache in a folder, and the log it follows when it runs."""

    folder: Path
    kafka: KafkaConnection

    @property
    def is_filled(self) -> bool:
        """Whether it was ready once."""
        return self.folder.exists()

    def empty(self) -> None:
        """Throw the cache away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def start(self) -> Mapping[str, float]:
        """Run it in a process until it is ready, and stop it. What it told, and `spawned_seconds` until then."""
        begun = time.perf_counter()
        its_own = {"folder": str(self.folder), "kafka": dataclasses.asdict(self.kafka)}
        async with program("benchmarks.instance", gives=its_own, ends_with_signal=False) as process:
            facts: dict[str, float] = await told(process)
            facts["spawned_seconds"] = time.perf_counter() - begun
        return facts


def _status_bytes(name: str) -> int:
    """A line of this process's own account; VmHWM is the peak of its resident set."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * _KILOBYTE for line in lines if line.startswith(f"{name}:"))


def _page_bytes(path: AccessPath) -> int:
    """The pages of the active generation."""
    cache = path.cache
    with cache._environment.begin() as transaction:  # noqa: SLF001  no operator asks for pages
        database = cache._generations[cache.head().active]  # noqa: SLF001
        stat = transaction.stat(database)
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return int(stat["psize"] * pages)


def _file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/data.mdb"))


def _is_fresh(path: AccessPath) -> bool:
    """Ready, and has heard both owners since it was started."""
    if not path.ready.is_ready:
        return False
    ages = path.status().ages_seconds
    return all(age is not None and age < _AGE_MAX_SECONDS for age in (ages[owner] for owner in OWNERS))


async def _main(its_own: Mapping[str, Any]) -> None:
    configure_logging("WARNING")
    folder = Path(its_own["folder"])
    begun = time.perf_counter()
    path = AccessPath.open(
        folder,
        service=MODULE,
        modules=(MODULE,),
        kafka=KafkaClients(KafkaConnection(**its_own["kafka"])),
        root_key=ROOT_KEY.public_key(),
    )
    following = asyncio.create_task(path.run())
    try:
        while not _is_fresh(path):  # noqa: ASYNC110  the feed tells nobody
            await asyncio.sleep(_LOOK_SECONDS)
        ready_seconds = time.perf_counter() - begun
        tell(
            {
                "ready_seconds": ready_seconds,
                "cpu_seconds": sum(psutil.Process().cpu_times()[:2]),
                "peak_mb": _status_bytes("VmHWM") / _MEGABYTE,
                "own_mb": _status_bytes("RssAnon") / _MEGABYTE,
                "page_bytes": _page_bytes(path),
                "file_bytes": _file_bytes(folder),
            }
        )
        await until_input_ends()
    finally:
        await end_tasks(following)
        path.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(given()))
