"""A cache of a million memberships: filled from nothing, and opened again with what it holds."""

import asyncio
from collections.abc import Mapping
from typing import Final

from benchmarks.bed import Bed
from benchmarks.figures import Figure, medians
from benchmarks.record_log import MEMBERSHIPS_COUNT

_ROUNDS: Final = 3
#: Longer than the age at which an instance counts as fresh, so that it has to hear both owners again.
_AWAY_SECONDS: Final = 4.0


async def measure(bed: Bed) -> list[Figure]:
    """Cold, warm, cold, warm."""
    instance = await bed.instance()

    async def cold() -> Mapping[str, float]:
        instance.empty()
        return {f"cold_{name}": value for name, value in (await instance.start()).items()}

    async def warm() -> Mapping[str, float]:
        await asyncio.sleep(_AWAY_SECONDS)
        return {f"warm_{name}": value for name, value in (await instance.start()).items()}

    found = await medians({"cold": cold, "warm": warm}, _ROUNDS)
    return [
        Figure("rebuild_1m_seconds", found["cold_ready_seconds"], "s"),
        Figure("rebuild_1m_cpu_seconds", found["cold_cpu_seconds"], "s"),
        Figure("rebuild_1m_rss_mb", found["cold_peak_mb"], "MB"),
        Figure("rebuild_1m_own_mb", found["cold_own_mb"], "MB"),
        Figure("bytes_per_membership", found["cold_page_bytes"] / MEMBERSHIPS_COUNT, "B"),
        Figure("cache_file_bytes_per_membership", found["cold_file_bytes"] / MEMBERSHIPS_COUNT, "B"),
        Figure("warm_restart_seconds", found["warm_ready_seconds"], "s"),
        Figure("warm_restart_of_process_seconds", found["warm_spawned_seconds"], "s"),
    ]
