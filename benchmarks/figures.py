"""A figure that was measured, and the goal it is held to."""

from dataclasses import dataclass
from typing import Final

_PERCENT: Final = 100


@dataclass(frozen=True)
class Figure:
    """`goal` is the largest value that is good enough, in the same unit; None where the figure is only told."""

    name: str
    value: float
    unit: str
    goal: float | None = None

    @property
    def ok(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        return None if self.goal is None else self.value <= self.goal


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // _PERCENT) - 1)]
