"""How old the state is by every pair of clocks, and when that is too old."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from access.freshness import SECOND, Bounds, Clocks, HeartbeatLedger, OwnerFreshness, Window, judge
from access.ingest import partitions_of
from access.records import microseconds
from contracts.events.auth import AuthHeartbeatSent
from contracts.events.heartbeat import Position

START = datetime(2026, 5, 21, tzinfo=UTC)
PARTITIONS = partitions_of("auth")


class Machine:
    """A wall clock and a boot-time clock that move apart when a test says so."""

    def __init__(self) -> None:
        self.wall = microseconds(START)
        self.boot = 1000 * SECOND
        self.clocks = Clocks(wall_us=lambda: self.wall, boot_us=lambda: self.boot, boot_id="a boot")

    def advance(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.boot += int(seconds * SECOND)


def heartbeat(
    as_of: datetime = START, next_offset: int = 0, *, complete: bool = True, left_out: int = 0
) -> AuthHeartbeatSent:
    positions = [
        Position(topic=topic, topic_id="A" * 22, partition=number, next_offset=next_offset)
        for topic, number in PARTITIONS
    ]
    return AuthHeartbeatSent(
        as_of=as_of,
        publish_counter=1,
        epoch_complete=complete,
        positions=tuple(positions[: len(positions) - left_out]),
    )


def proved(machine: Machine, **about: float) -> OwnerFreshness:
    ledger = HeartbeatLedger(PARTITIONS, machine.clocks, Bounds())
    as_of = START + timedelta(**about)
    return ledger.prove(ledger.receive(OwnerFreshness(), heartbeat(as_of), 1, 1), lambda _: 0)


def doubt(machine: Machine, owner: OwnerFreshness, *, reading: bool = False) -> str | None:
    return judge((owner, owner), machine.clocks, Bounds(), reading=reading).doubt


def test_age_is_the_lag_at_receipt_and_the_boot_time_since() -> None:
    machine = Machine()
    owner = proved(machine, seconds=-2)
    machine.advance(5)
    assert owner.age(machine.boot) == 7 * SECOND
    # A heartbeat a little ahead of the wall clock is not fresher than fresh.
    assert proved(machine, seconds=9).age(machine.boot) == 0


def test_each_bound_holds_to_the_microsecond() -> None:
    for reading, bound_seconds in ((False, 45), (True, 300)):
        machine = Machine()
        owner = proved(machine)
        machine.advance(bound_seconds)
        assert doubt(machine, owner, reading=reading) is None
        machine.advance(1 / SECOND)
        assert "old" in (doubt(machine, owner, reading=reading) or "")


def test_the_older_owner_counts() -> None:
    machine = Machine()
    old = proved(machine)
    machine.advance(50)
    young = replace(old, received_boot=machine.boot, received_wall=machine.wall)
    assert judge((young, old), machine.clocks, Bounds(), reading=False).age == 50 * SECOND
    assert judge((young, old), machine.clocks, Bounds(), reading=False).doubt is not None
    assert judge((OwnerFreshness(), young), machine.clocks, Bounds(), reading=True).doubt is not None


def test_a_heartbeat_from_the_future_is_no_proof() -> None:
    machine = Machine()
    assert proved(machine, seconds=5).as_of
    assert not proved(machine, seconds=5.000001).as_of
    ledger = HeartbeatLedger(PARTITIONS, machine.clocks, Bounds())
    good = proved(machine)
    warned = ledger.receive(good, heartbeat(START + timedelta(hours=1)), 1, 2)
    assert doubt(machine, warned) is not None
    assert doubt(machine, ledger.receive(warned, heartbeat(START), 1, 3)) is None


def test_a_source_clock_that_was_ahead_and_is_set_right_is_not_waited_for() -> None:
    """The versions of heartbeats are times, so that those of the clock that is right are older ones."""
    machine = Machine()
    ledger = HeartbeatLedger(PARTITIONS, machine.clocks, Bounds())
    known = ledger.prove(ledger.receive(OwnerFreshness(), heartbeat(), 1, 1_000), lambda _: 0)
    known = ledger.receive(known, heartbeat(START + timedelta(hours=1)), 1, 3_600_000)
    assert known.ahead
    known = ledger.prove(ledger.receive(known, heartbeat(START + timedelta(seconds=1)), 1, 2_000), lambda _: 0)
    assert doubt(machine, known) is None
    assert known.as_of == microseconds(START + timedelta(seconds=1))


def test_a_wall_clock_that_was_moved_is_not_trusted() -> None:
    for step in (-5.1, 5.1, 3600, -3600):
        machine = Machine()
        owner = proved(machine)
        machine.wall += int(step * SECOND)
        assert doubt(machine, owner) is not None
        machine.wall -= int(step * SECOND)
        assert doubt(machine, owner) is None


def test_setting_the_wall_clock_back_does_not_make_old_state_young() -> None:
    machine = Machine()
    owner = proved(machine)
    machine.advance(46)
    machine.wall -= 4 * SECOND
    assert "46 s old" in (doubt(machine, owner) or "")


def test_a_partition_is_fresh_only_when_the_offset_is_applied() -> None:
    machine = Machine()
    ledger = HeartbeatLedger(PARTITIONS, machine.clocks, Bounds())
    known = ledger.receive(OwnerFreshness(), heartbeat(next_offset=5), 1, 1)
    behind = dict.fromkeys(PARTITIONS, 5) | {PARTITIONS[3]: 4}
    assert not ledger.prove(known, behind.__getitem__).as_of
    assert ledger.prove(known, dict.fromkeys(PARTITIONS, 5).__getitem__).as_of


def test_a_heartbeat_that_leaves_a_partition_out_proves_nothing() -> None:
    machine = Machine()
    ledger = HeartbeatLedger(PARTITIONS, machine.clocks, Bounds())
    known = ledger.receive(OwnerFreshness(), heartbeat(left_out=1), 1, 1)
    assert not ledger.prove(known, lambda _: 99).as_of


def test_the_newest_heartbeat_that_is_reached_counts() -> None:
    machine = Machine()
    ledger = HeartbeatLedger(PARTITIONS, machine.clocks, Bounds())
    known = OwnerFreshness()
    for number in range(1, 2000):
        known = ledger.receive(known, heartbeat(START + timedelta(milliseconds=number), number), 1, number)
    assert ledger.prove(known, lambda _: 3).as_of == microseconds(START + timedelta(milliseconds=3))
    known = ledger.prove(known, lambda _: 5000)
    assert known.as_of == microseconds(START + timedelta(milliseconds=1999))


def test_an_older_or_repeated_heartbeat_changes_nothing() -> None:
    machine = Machine()
    ledger = HeartbeatLedger(PARTITIONS, machine.clocks, Bounds())
    known = ledger.receive(OwnerFreshness(), heartbeat(), 2, 5)
    for epoch, version in ((2, 5), (2, 4), (1, 99)):
        assert ledger.receive(known, heartbeat(complete=False), epoch, version) == known


def test_another_epoch_makes_older_records_unknown_until_it_is_complete() -> None:
    machine = Machine()
    ledger = HeartbeatLedger(PARTITIONS, machine.clocks, Bounds())
    known = ledger.prove(ledger.receive(OwnerFreshness(), heartbeat(), 1, 1), lambda _: 0)
    assert known.epoch_floor == 0
    known = ledger.prove(ledger.receive(known, heartbeat(complete=False), 2, 1), lambda _: 0)
    assert known.epoch_floor == 2
    # Complete, but what it speaks of is not applied yet.
    known = ledger.receive(known, heartbeat(next_offset=7), 2, 2)
    assert ledger.prove(known, lambda _: 6).epoch_floor == 2
    assert ledger.prove(known, lambda _: 7).epoch_floor == 0


OWNER = st.builds(
    OwnerFreshness,
    as_of=st.just(0) | st.integers(microseconds(START) - 400 * SECOND, microseconds(START) + 400 * SECOND),
    lag=st.integers(0, 100 * SECOND),
    received_wall=st.integers(microseconds(START) - 20 * SECOND, microseconds(START) + 20 * SECOND),
    received_boot=st.integers(980 * SECOND, 1000 * SECOND),
    ahead=st.booleans(),
)


@given(OWNER, OWNER, st.integers(0, 400 * SECOND), st.integers(-20 * SECOND, 20 * SECOND), st.booleans())
def test_the_window_says_what_the_judgement_says(
    first: OwnerFreshness,
    second: OwnerFreshness,
    since: int,
    step: int,
    reading: bool,  # noqa: FBT001
) -> None:
    machine = Machine()
    machine.boot += since
    machine.wall += since + step
    freshness = judge((first, second), machine.clocks, Bounds(), reading=reading)
    window = Window((first, second), Bounds(), reading=reading)
    expected = None if freshness.doubt is not None else (freshness.now, freshness.age)
    assert window.at(machine.wall, machine.boot) == expected
