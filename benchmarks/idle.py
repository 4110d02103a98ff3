"""What thirteen services use while nobody asks them for anything: feeds, heartbeats and acknowledgements go on.

Processor time is that of whole processes, jobs and the supervisor's looks at them included, as a part of one core.
The thirteenth service is Auth, which has no feed; one of the instances that follow the log is left out for it.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import psutil

from benchmarks.bed import Bed
from benchmarks.figures import Figure
from benchmarks.fleet import INSTANCES
from infra.embedded.child import running_pid

_SETTLING_SECONDS: Final = 15.0
_WINDOW_SECONDS: Final = 60.0
_PERCENT: Final = 100.0
_MEGABYTE: Final = 1_000_000


async def measure(bed: Bed) -> list[Figure]:
    """Over a minute."""
    fleet = await bed.fleet()
    auth = running_pid(fleet.system.state.pid_path("service-auth"))
    if auth is None:
        raise AssertionError("Auth runs")
    services = [psutil.Process(pid) for pid in [auth, *fleet.processes.values()][:INSTANCES]]
    servers = {name: _family(running_pid(fleet.system.state.pid_path(name)) or 0) for name in ("kafka", "postgres")}
    await asyncio.sleep(_SETTLING_SECONDS)
    groups: Mapping[str, list[psutil.Process]] = {"feeds": services, **servers}
    before = {name: _used_seconds(processes) for name, processes in groups.items()}
    await asyncio.sleep(_WINDOW_SECONDS)
    used = {
        name: (_used_seconds(processes) - before[name]) / _WINDOW_SECONDS * _PERCENT
        for name, processes in groups.items()
    }
    memory = sum(process.memory_full_info().pss for process in services) / _MEGABYTE
    return [
        Figure("idle_feeds_percent", used["feeds"], "%"),
        Figure("idle_kafka_percent", used["kafka"], "%"),
        Figure("idle_postgres_percent", used["postgres"], "%"),
        Figure("idle_services_pss_mb", memory, "MB"),
    ]


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _used_seconds(processes: Iterable[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
