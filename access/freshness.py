"""How old the applied state is, judged by heartbeats and two clocks (design §5 Staleness).

The age of an owner's state is max(0, wall clock when the heartbeat came - T) plus the boot-time clock since: the wall
clock may step, the boot-time clock does not and goes on while the machine sleeps. Times are in microseconds.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from access.records import microseconds
from contracts.events.heartbeat import Heartbeat
from infra.clock import Clock, utc_now

SECOND: Final = 1_000_000
OWNERS: Final = ("entitlements", "auth")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
#: Where it is missing (macOS) the monotonic clock is the one that goes on while the machine sleeps.
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_PENDING_MAX: Final = 512


def _boot_time_us() -> int:
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1000


def _boot_id() -> str:
    if _BOOT_ID.exists():
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return f"{psutil.boot_time():.0f}"


@dataclass(frozen=True)
class Clocks:
    """The wall clock, the clock since boot, and which boot it is."""

    wall_us: Callable[[], int]
    boot_us: Callable[[], int]
    boot_id: str

    @classmethod
    def of(cls, clock: Clock = utc_now) -> "Clocks":
        """This machine's, with a service's wall clock."""
        if clock is utc_now:
            return cls(wall_us=lambda: time.time_ns() // 1000, boot_us=_boot_time_us, boot_id=_boot_id())
        return cls(wall_us=lambda: microseconds(clock()), boot_us=_boot_time_us, boot_id=_boot_id())


@dataclass(frozen=True)
class Bounds:
    """How stale is too stale, in seconds. A demonstration shortens them and says so."""

    #: Past it an alarm is raised; decisions go on.
    soft_seconds: float = 10
    #: Past it writes and administration are answered 503.
    hard_seconds: float = 45
    #: Past it GET and HEAD are answered 503 too.
    hard_reading_seconds: float = 300
    #: The age below which a first filling of the cache counts as complete.
    complete_seconds: float = 10
    #: How far a heartbeat may be ahead of the wall clock, and the wall clock may move against the boot-time clock.
    skew_seconds: float = 5
    #: A client that brought no record for so long is built anew; a heartbeat comes each second.
    silence_seconds: float = 15
    #: A client that does not answer a call for so long is built anew too.
    answer_seconds: float = 10


@dataclass(frozen=True, slots=True)
class OwnerFreshness:
    """What is known of one owner. Nothing is known before the first heartbeat: `as_of` is 0 then."""

    #: T of the newest heartbeat whose offsets are all applied, and how far behind the wall clock it came.
    as_of: int = 0
    lag: int = 0
    #: Both clocks when it came.
    received_wall: int = 0
    received_boot: int = 0
    #: The newest epoch heard of, and the version of its newest heartbeat.
    epoch: int = 0
    heartbeat: int = 0
    #: Records of an older epoch are unknown: the owner was restored and has not published all of it. 0 is none.
    epoch_floor: int = 0
    #: The newest heartbeat came from further in the future than clocks may differ.
    ahead: bool = False

    def age(self, boot_now: int) -> int | None:
        """Its age, or None before anything is known."""
        return self.lag + max(0, boot_now - self.received_boot) if self.as_of else None

    def source_time(self, boot_now: int) -> int:
        """The owner's clock as far as it is known: T and the time since."""
        return self.as_of + max(0, boot_now - self.received_boot) if self.as_of else 0

    def doubt(self, wall_now: int, boot_now: int, skew: int) -> str | None:
        """Why the clocks cannot be trusted, or None where they can."""
        if self.ahead:
            return "the clocks of this machine and of the sources differ"
        if self.as_of and abs((wall_now - self.received_wall) - (boot_now - self.received_boot)) > skew:
            return "the clock of this machine was moved"
        return None


@dataclass(frozen=True, slots=True)
class Freshness:
    """Both owners as one decision sees them."""

    #: The age of the older one; None before both were heard.
    age: int | None
    #: Why no decision may be taken, or None where it may.
    doubt: str | None
    #: What expiry is judged at: never before what a source's clock said.
    now: int


def judge(
    owners: Iterable[OwnerFreshness], clocks: Clocks, bounds: Bounds, *, reading: bool, names: Iterable[str] = OWNERS
) -> Freshness:
    """Whether these owners' state is fresh enough for a request that only reads, or for any other."""
    wall_now, boot_now = clocks.wall_us(), clocks.boot_us()
    skew = int(bounds.skew_seconds * SECOND)
    bound_seconds = bounds.hard_reading_seconds if reading else bounds.hard_seconds
    bound = int(bound_seconds * SECOND)
    oldest, now = 0, wall_now
    doubt = None
    unheard = False
    for name, owner in zip(names, owners, strict=True):
        age = owner.age(boot_now)
        if age is None:
            unheard, doubt = True, doubt or f"nothing has been heard of {name} yet"
            continue
        oldest = max(oldest, age)
        now = max(now, owner.source_time(boot_now))
        if doubt is None:
            doubt = owner.doubt(wall_now, boot_now, skew)
        if doubt is None and age > bound:
            doubt = (
                f"the newest news from {name} is {age / SECOND:.0f} s old, and this request allows {bound_seconds:g} s"
            )
    return Freshness(None if unheard else oldest, doubt, now)


class Window:
    """What `judge` says for a while, worked out once per heartbeat, so that a decision only compares two clocks.

    It holds while both owners are inside the bound and the clocks have not moved apart; outside, `judge` says why.
    """

    __slots__ = ("_age_base", "_apart_max", "_apart_min", "_boot_max", "_source_ahead")

    def __init__(self, owners: Iterable[OwnerFreshness], bounds: Bounds, *, reading: bool) -> None:
        heard = list(owners)
        skew = int(bounds.skew_seconds * SECOND)
        bound = int((bounds.hard_reading_seconds if reading else bounds.hard_seconds) * SECOND)
        apart = [owner.received_wall - owner.received_boot for owner in heard]
        self._apart_min, self._apart_max = max(apart) - skew, min(apart) + skew
        self._age_base = min(owner.received_boot - owner.lag for owner in heard)
        #: -1 never holds.
        self._boot_max = -1 if any(owner.ahead or not owner.as_of for owner in heard) else self._age_base + bound
        self._source_ahead = max(owner.as_of - owner.received_boot for owner in heard)

    def at(self, wall: int, boot: int) -> tuple[int, int] | None:
        """`now` and `age` of `Freshness`; None where it does not hold."""
        if boot > self._boot_max or not self._apart_min <= wall - boot <= self._apart_max:
            return None
        return max(wall, boot + self._source_ahead), max(0, boot - self._age_base)


@dataclass(frozen=True, slots=True)
class _Pending:
    as_of: int
    lag: int
    received_wall: int
    received_boot: int
    epoch: int
    heartbeat: int
    complete: bool
    #: The offsets it proves, by topic and partition.
    offsets: dict[tuple[str, int], int]


class HeartbeatLedger:
    """The heartbeats of one owner that wait until what they speak of is applied.

    :param partitions: the owner's access partitions, all of which a heartbeat must speak of to prove anything.
    """

    def __init__(self, partitions: Iterable[tuple[str, int]], clocks: Clocks, bounds: Bounds) -> None:
        self._partitions = frozenset(partitions)
        self._clocks = clocks
        self._skew = int(bounds.skew_seconds * SECOND)
        self._pending: list[_Pending] = []

    def receive(self, known: OwnerFreshness, heartbeat: Heartbeat, epoch: int, version: int) -> OwnerFreshness:
        """Note a heartbeat that just came, and return what it changes at once. An older one changes nothing."""
        if (epoch, version) <= (known.epoch, known.heartbeat):
            return known
        wall, boot = self._clocks.wall_us(), self._clocks.boot_us()
        as_of = microseconds(heartbeat.as_of)
        if as_of - wall > self._skew:
            # Nothing else of it counts: a clock that is set right again must not be waited for.
            return replace(known, ahead=True)
        offsets = {
            (position.topic, position.partition): position.next_offset
            for position in heartbeat.positions
            if (position.topic, position.partition) in self._partitions
        }
        # One that leaves a partition out says nothing of it.
        if offsets.keys() == self._partitions:
            waiting = _Pending(
                as_of, max(0, wall - as_of), wall, boot, epoch, version, heartbeat.epoch_complete, offsets
            )
            if len(self._pending) >= _PENDING_MAX:
                # While much is behind, the oldest is the next to be proved.
                self._pending[-1] = waiting
            else:
                self._pending.append(waiting)
        is_restored = known.epoch not in {0, epoch}
        floor = epoch if is_restored or not heartbeat.epoch_complete else known.epoch_floor
        return replace(known, epoch=epoch, heartbeat=version, epoch_floor=floor, ahead=False)

    def prove(self, known: OwnerFreshness, applied: Callable[[tuple[str, int]], int]) -> OwnerFreshness:
        """What is known once everything below these offsets is applied."""
        for number in reversed(range(len(self._pending))):
            newest = self._pending[number]
            if all(applied(partition) >= offset for partition, offset in newest.offsets.items()):
                del self._pending[: number + 1]
                break
        else:
            return known
        if newest.epoch < known.epoch:
            return known
        return replace(
            known,
            as_of=newest.as_of,
            lag=newest.lag,
            received_wall=newest.received_wall,
            received_boot=newest.received_boot,
            epoch_floor=0 if newest.complete else known.epoch_floor,
        )

    def forget(self) -> None:
        """Drop what waits: the offsets it speaks of are no longer comparable."""
        self._pending.clear()
