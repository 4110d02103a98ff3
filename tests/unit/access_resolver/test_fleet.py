"""What is proved by which words of whom, and what the resolver makes of words it cannot read."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from access.acknowledgements import TOPIC
from access.cache import Quarantine
from access.feed import Applied
from access.ingest import MEMBERSHIPS, partition_of
from access.records import membership_key
from access.unknown import StateUnknownError
from contracts.envelope import encode, envelop
from contracts.events import heartbeat
from contracts.events.access import AppliedRecord, InstanceStatus, RecordsApplied
from contracts.identifiers import PLATFORM_COMPANY_ID, UserId, new_id
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from services.access_resolver.fleet import operations, rules
from services.access_resolver.fleet.operations import Fleet
from services.access_resolver.fleet.rules import Instance, Position, Target, has_applied, prove
from tests.harness.access import grant
from tests.harness.clock import FakeClock
from tests.harness.local_access import LocalAccess, local_access

NOW = FakeClock()()
EVENT = new_id()
PARTITION = (MEMBERSHIPS, 3)
TOPIC_ID, OTHER_TOPIC_ID = "A" * 22, "B" * 22
TARGET = Target(epoch=1, version=7, event_id=EVENT, partition=PARTITION, position=Position(TOPIC_ID, 100))


def instance(**changed: Any) -> Instance:
    """One that is far behind."""
    made = Instance(
        id=str(new_id()),
        service="finance",
        status=InstanceStatus.SERVING,
        generation=1,
        is_complete=True,
        last_seen=NOW,
        fresh_as_of={},
        positions={PARTITION: Position(TOPIC_ID, 99)},
        applied_at={},
    )
    return replace(made, **changed)


# Who has applied a state.


@pytest.mark.parametrize(
    ("changed", "has"),
    [
        ({}, False),
        ({"positions": {PARTITION: Position(TOPIC_ID, 100)}}, True),
        ({"positions": {PARTITION: Position(OTHER_TOPIC_ID, 100)}}, False),
        ({"positions": {(MEMBERSHIPS, 2): Position(TOPIC_ID, 100)}}, False),
        ({"positions": {}}, False),
        ({"positions": {}, "applied_at": {EVENT: NOW}}, True),
        ({"positions": {}, "applied_at": {new_id(): NOW}}, False),
    ],
)
def test_an_instance_has_applied_a_state_by_its_word_or_by_its_position(changed: dict[str, Any], *, has: bool) -> None:
    assert has_applied(instance(**changed), TARGET) is has


def test_a_state_of_which_neither_event_nor_position_is_known_is_applied_nowhere() -> None:
    unknown = replace(TARGET, event_id=None, position=None)
    far = instance(positions={PARTITION: Position(TOPIC_ID, 10**9)}, applied_at={EVENT: NOW})
    assert not has_applied(far, unknown)


# Who counts.


@pytest.mark.parametrize(
    ("status", "silent_seconds", "counts"),
    [
        (InstanceStatus.SERVING, 0, True),
        (InstanceStatus.NOT_READY, 0, True),
        (InstanceStatus.SERVING, 299.999, True),
        (InstanceStatus.NOT_READY, 299.999, True),
        (InstanceStatus.SERVING, 300, False),
        (InstanceStatus.STOPPED, 0, False),
    ],
)
def test_an_instance_counts_until_it_signs_off_or_is_silent_for_300_seconds(
    status: InstanceStatus, silent_seconds: float, *, counts: bool
) -> None:
    behind = instance(status=status, last_seen=NOW - timedelta(seconds=silent_seconds))
    ahead = instance(applied_at={EVENT: NOW})
    assert behind.counts(NOW) is counts
    assert prove([behind, ahead], TARGET, NOW).is_proved is not counts


def test_a_proof_says_who_has_applied_it_when_and_who_is_missing() -> None:
    told = instance(service="venue", applied_at={EVENT: NOW})
    passed = instance(service="ai", positions={PARTITION: Position(TOPIC_ID, 200)})
    proof = prove([told, passed], TARGET, NOW)
    assert [(each.instance, each.at) for each in proof.applied] == [(passed, None), (told, NOW)]
    assert (proof.is_proved, proof.verdict) == (True, "proved")
    behind = instance()
    unproved = prove([told, behind, passed], TARGET, NOW)
    assert (unproved.missing, unproved.is_proved) == ((behind,), False)
    assert unproved.verdict == f"not proved, missing finance {behind.id}"


def test_nobody_at_all_proves_nothing() -> None:
    for nobody in ([], [instance(status=InstanceStatus.STOPPED, applied_at={EVENT: NOW})]):
        proof = prove(nobody, TARGET, NOW)
        assert (proof.is_proved, proof.verdict) == (False, "not proved, missing every instance")


def test_nothing_is_said_of_a_fleet_that_was_not_heard_for_ten_seconds() -> None:
    assert rules.check_heard(NOW - timedelta(seconds=10), NOW) == NOW - timedelta(seconds=10)
    for unheard in (None, NOW - timedelta(seconds=10, microseconds=1)):
        with pytest.raises(rules.FleetUnheardError):
            rules.check_heard(unheard, NOW)


def test_a_clock_that_is_far_ahead_does_not_make_the_fleet_heard() -> None:
    late, early = instance(last_seen=NOW - timedelta(minutes=1)), instance(last_seen=NOW + timedelta(hours=1))
    assert rules.newest_word([late, early], NOW) == late.last_seen
    assert rules.newest_word([late, instance(last_seen=NOW + timedelta(seconds=5))], NOW) == NOW + timedelta(seconds=5)
    assert rules.newest_word([early], NOW) is None


# What the resolver hears.


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalAccess]:
    with local_access(tmp_path / "cache") as found:
        found.hold(grant(found.user_id))
        yield found


@pytest.fixture
def fleet(local: LocalAccess) -> Fleet:
    nowhere = KafkaConnection(bootstrap_servers="127.0.0.1:1", username="nobody", password="none")
    return Fleet(KafkaClients(nowhere), local.clock)


class Speaker:
    """An instance that acknowledges by hand."""

    def __init__(self, fleet: Fleet, clock: FakeClock, name: str = "") -> None:
        self.fleet, self.clock, self.name = fleet, clock, name or str(new_id())
        self.version = 0

    def say(
        self,
        *,
        positions: dict[tuple[str, int], int] | None = None,
        events: dict[UUID, datetime] | None = None,
        status: InstanceStatus = InstanceStatus.SERVING,
    ) -> bytes:
        """Returns the words."""
        self.version += 1
        envelope = envelop(
            RecordsApplied(
                instance=self.name,
                service="finance",
                status=status,
                generation=1,
                generation_complete=True,
                fresh_as_of={"auth": self.clock()},
                positions=tuple(
                    heartbeat.Position(topic=topic, topic_id=TOPIC_ID, partition=number, next_offset=offset)
                    for (topic, number), offset in (positions or {}).items()
                ),
                records=tuple(
                    AppliedRecord(topic=MEMBERSHIPS, event_id=event_id, epoch=1, version=1, applied_at=at)
                    for event_id, at in (events or {}).items()
                ),
            ),
            occurred_at=self.clock(),
            company_id=PLATFORM_COMPANY_ID,
            actor_user_id=None,
            epoch=1,
            version=self.version,
            correlation_id=new_id(),
        )
        self.fleet.hear(TOPIC.record_key(envelope), encode(envelope))
        return encode(envelope)


def applied(local: LocalAccess, *, version: int = 1, event_id: UUID = EVENT) -> Applied:
    return Applied(MEMBERSHIPS, event_id, 1, version, membership_key(local.company_id, local.user_id))


def place(local: LocalAccess, offset: int) -> tuple[str, int]:
    """Have the cache stand at this offset of the membership's partition."""
    partition = partition_of(MEMBERSHIPS, f"{local.company_id}/{local.user_id}".encode())
    local.path.cache.note_topic_ids(0, {MEMBERSHIPS: TOPIC_ID})
    local.path.cache.apply(0, (), {partition: offset})
    return partition


def test_a_revocation_is_proved_by_its_event_and_the_next_one_is_not(local: LocalAccess, fleet: Fleet) -> None:
    fleet.note([applied(local)])
    speaker = Speaker(fleet, local.clock)
    speaker.say(events={EVENT: NOW - timedelta(milliseconds=5)})
    found = fleet.prove(local.path, local.company_id, local.user_id)
    assert found.revision == f"auth.memberships.v1:{local.company_id}/{local.user_id}:1:1"
    assert [each.at for each in found.proof.applied] == [NOW - timedelta(milliseconds=5)]
    local.hold(grant(local.user_id, permissions=()))
    fleet.note([applied(local, version=2, event_id=new_id())])
    assert not fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved


def test_an_event_of_another_version_proves_nothing(local: LocalAccess, fleet: Fleet) -> None:
    """The resolver was told of version 1 and has 2 meanwhile, from a rebuild: whose event that was is not known."""
    fleet.note([applied(local)])
    local.hold(grant(local.user_id, permissions=()))
    Speaker(fleet, local.clock).say(events={EVENT: NOW})
    assert not fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved


def test_what_was_not_told_one_by_one_is_proved_by_positions_and_a_busy_log_changes_nothing(
    local: LocalAccess, fleet: Fleet
) -> None:
    partition = place(local, 50)
    speaker = Speaker(fleet, local.clock)
    speaker.say(positions={partition: 49})
    assert not fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved
    # Others' states arrive here all the time; the one that is asked for lies below 50 for ever.
    place(local, 60)
    speaker.say(positions={partition: 50})
    assert fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved


def test_before_the_topic_is_known_by_its_id_nothing_is_proved_by_positions_and_then_it_is(
    local: LocalAccess, fleet: Fleet
) -> None:
    partition = partition_of(MEMBERSHIPS, f"{local.company_id}/{local.user_id}".encode())
    speaker = Speaker(fleet, local.clock)
    speaker.say(positions={partition: 50})
    assert not fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved
    place(local, 50)
    assert fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved


def test_an_instance_that_crashed_is_missing_for_300_seconds_and_one_that_signed_off_is_not(
    local: LocalAccess, fleet: Fleet
) -> None:
    partition = place(local, 50)
    alive, crashed, stopped = (Speaker(fleet, local.clock) for _ in range(3))
    crashed.say(positions={partition: 1})
    stopped.say(positions={partition: 1})
    stopped.say(status=InstanceStatus.STOPPED)
    local.clock.advance(seconds=299)
    local.freshen()
    alive.say(positions={partition: 50})
    proof = fleet.prove(local.path, local.company_id, local.user_id).proof
    assert [each.id for each in proof.missing] == [crashed.name]
    local.clock.advance(seconds=1)
    local.freshen()
    assert fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved


def test_one_that_signed_off_and_is_back_counts_again(local: LocalAccess, fleet: Fleet) -> None:
    place(local, 50)
    back = Speaker(fleet, local.clock)
    back.say(status=InstanceStatus.STOPPED)
    back.say()
    assert [each.id for each in fleet.prove(local.path, local.company_id, local.user_id).proof.missing] == [back.name]


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b"not json"])
def test_one_that_cannot_be_understood_is_missing(local: LocalAccess, fleet: Fleet, value: bytes | None) -> None:
    partition = place(local, 50)
    speaker, other = Speaker(fleet, local.clock), Speaker(fleet, local.clock)
    for each in (speaker, other):
        each.say(positions={partition: 50})
    assert fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved
    fleet.hear(speaker.name.encode(), value)
    proof = fleet.prove(local.path, local.company_id, local.user_id).proof
    assert proof.verdict == f"not proved, missing unreadable {speaker.name}"
    speaker.say(positions={partition: 50})
    assert fleet.prove(local.path, local.company_id, local.user_id).proof.is_proved


def test_words_under_another_name_are_nobodys(local: LocalAccess, fleet: Fleet) -> None:
    speaker, liar = Speaker(fleet, local.clock), Speaker(Fleet(fleet._kafka, local.clock), local.clock)
    speaker.say()
    fleet.hear(speaker.name.encode(), liar.say(positions={place(local, 50): 50}))
    ((heard,), _) = fleet.instances()
    assert (heard.id, heard.service, heard.positions) == (speaker.name, None, {})


def test_a_fleet_that_fell_silent_is_503(local: LocalAccess, fleet: Fleet) -> None:
    with pytest.raises(rules.FleetUnheardError):
        fleet.prove(local.path, local.company_id, local.user_id)
    Speaker(fleet, local.clock).say()
    fleet.prove(local.path, local.company_id, local.user_id)
    local.clock.advance(seconds=11)
    local.freshen()
    with pytest.raises(rules.FleetUnheardError):
        fleet.prove(local.path, local.company_id, local.user_id)


def test_of_a_state_in_doubt_or_of_nobody_nothing_is_proved(local: LocalAccess, fleet: Fleet) -> None:
    Speaker(fleet, local.clock).say()
    with pytest.raises(rules.MembershipUnknownError):
        fleet.prove(local.path, local.company_id, UserId(new_id()))
    local.apply(Quarantine(membership_key(local.company_id, local.user_id), "broken"))
    with pytest.raises(StateUnknownError):
        fleet.prove(local.path, local.company_id, local.user_id)


def test_memory_is_bounded(local: LocalAccess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_EVENTS_MAX", 5)
    monkeypatch.setattr(operations, "_SUBJECTS_MAX", 5)
    speaker = Speaker(fleet, local.clock)
    for _ in range(4):
        speaker.say(events={new_id(): NOW, new_id(): NOW})
    speaker.say(events={EVENT: NOW})
    ((heard,), _) = fleet.instances()
    assert len(heard.applied_at) == 5
    assert EVENT in heard.applied_at
    fleet.note([Applied(MEMBERSHIPS, new_id(), 1, 1, new_id().bytes) for _ in range(9)])
    fleet.note([Applied("auth.sessions.v1", new_id(), 1, 1, b"other")])
    assert len(fleet._events) == 5
    assert b"other" not in fleet._events
