"""Figures, the goals they are held to, and the rounds they are the medians of."""

import statistics
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_PERCENT: Final = 100


@dataclass(frozen=True)
class Goal:
    """The value that is just good enough; what is larger is worse, unless it `is_least`."""

    bound: float
    is_least: bool = False

    def __str__(self) -> str:
        """As the table shows it."""
        return f"{'≥' if self.is_least else '≤'} {self.bound:g}"

    def is_reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.bound if self.is_least else value <= self.bound


#: The goals of design §9; the two of the bulk lane are those of the lane's own promise. A figure that is not here is
#: only told.
GOALS: Final[Mapping[str, Goal]] = {
    "decision_p50_us": Goal(5),
    "decision_p99_us": Goal(30),
    "decision_flatness": Goal(2),
    "decision_vs_bare_lmdb": Goal(1.5),
    "decision_vs_pycasbin_110k": Goal(10_000, is_least=True),
    "decision_vs_pycasbin_fast": Goal(40, is_least=True),
    "decision_vs_cedarpy": Goal(15, is_least=True),
    "rebuild_1m_seconds": Goal(30),
    "rebuild_1m_rss_mb": Goal(500),
    "bytes_per_membership": Goal(220),
    "warm_restart_seconds": Goal(1),
    "revoke_to_deny_p50_ms": Goal(10),
    "revoke_to_deny_p99_ms": Goal(50),
    "revoke_slowest_of_13_p50_ms": Goal(25),
    "revoke_vs_bare_ratio": Goal(2.5),
    "chain_cpu_us": Goal(40),
    "chain_throughput_ratio": Goal(0.95, is_least=True),
    "relay_rows_per_second": Goal(20_000, is_least=True),
    "relay_300_b_rows_per_second": Goal(40_000, is_least=True),
    "relay_p50_ms": Goal(5),
    "finance_list_p99_ms": Goal(50),
    "finance_dashboard_p99_ms": Goal(50),
    "finance_export_flatness": Goal(1.2),
    "idle_feeds_percent": Goal(10),
    "bulk_p99_vs_idle": Goal(3),
    "bulk_unavailable_answers": Goal(0),
}


@dataclass(frozen=True)
class Figure:
    """Something that was measured."""

    name: str
    value: float
    unit: str

    @property
    def goal(self) -> Goal | None:
        """What it is held to, or None where it is only told."""
        return GOALS.get(self.name)

    @property
    def ok(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        return None if self.goal is None else self.goal.is_reached(self.value)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, int(-(-len(ordered) * percent // _PERCENT)) - 1)]


async def medians(
    contenders: Mapping[str, Callable[[], Awaitable[Mapping[str, float]]]], rounds: int
) -> dict[str, float]:
    """Measure each in turn, round after round, so that what slows the machine slows all of them.

    Each contender measures what it names; the answer is the median of every name over the rounds.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for measure in contenders.values():
            for name, value in (await measure()).items():
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}
