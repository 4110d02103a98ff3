"""The clock is a parameter: whatever needs the time is given one of these."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Wall-clock time, aware, in UTC."""
    return datetime.now(UTC)
