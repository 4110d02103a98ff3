"""Which instances count, and whether each has applied a state (design §5, Acknowledgements and proof).

A proof errs on one side only: an instance of which it is not known that it has applied a state has not applied it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.events.access import InstanceStatus

#: An instance that falls silent may go on deciding for as long, from what it had.
COUNTS_FOR: Final = timedelta(seconds=300)
#: Instances acknowledge each second. Of a fleet not heard for longer nothing is proved: there may be new ones.
HEARD_WITHIN: Final = timedelta(seconds=10)
#: One whose clock is ahead by more decides nothing, and says nothing of how new its word is.
AHEAD_AT_MOST: Final = timedelta(seconds=5)


class MembershipUnknownError(DomainError):
    """Unknown, or of another company: the answer must not tell which."""

    kind = Kind.NOT_FOUND
    code = "membership_unknown"
    title = "There is no such membership"

    def __init__(self) -> None:
        super().__init__("The company you act in has never had a member with this id.")


class FleetUnheardError(DomainError):
    """Without the fleet's word nothing is proved, and nothing is denied."""

    kind = Kind.UNAVAILABLE
    code = "fleet_unheard"
    title = "It is not known which instances there are"

    def __init__(self) -> None:
        super().__init__("The instances' acknowledgements have not arrived lately. Try again in a moment.")


@dataclass(frozen=True)
class Position:
    """Below this offset of a topic all is applied; another id under the same name is another topic."""

    topic_id: str
    next_offset: int


@dataclass(frozen=True)
class Instance:
    """What an instance said of itself last. Without a service it spoke in a form that this version cannot read."""

    id: str
    service: str | None
    status: InstanceStatus
    generation: int
    is_complete: bool
    #: By its own clock. One that is behind ours by seconds decides nothing: heartbeats come from its future.
    last_seen: datetime
    fresh_as_of: Mapping[str, datetime]
    #: By topic and partition.
    positions: Mapping[tuple[str, int], Position]
    #: When it applied events it told of one by one, the latest.
    applied_at: Mapping[UUID, datetime]

    def counts(self, now: datetime) -> bool:
        """Whether a proof waits for it: until it signed off, or was silent for 300 s."""
        return self.status is not InstanceStatus.STOPPED and now < self.last_seen + COUNTS_FOR


@dataclass(frozen=True)
class Target:
    """A state of a subject: by its event, where that is known, and by an offset below which it lies."""

    epoch: int
    version: int
    event_id: UUID | None
    partition: tuple[str, int]
    #: None where the topic's id is not known yet.
    position: Position | None


@dataclass(frozen=True)
class Applied:
    """`at` is the instance's own word for when its decisions changed; None where it told of its position only."""

    instance: Instance
    at: datetime | None


@dataclass(frozen=True)
class Proof:
    """Proved if every instance that counts has applied the state, and there is one."""

    applied: tuple[Applied, ...]
    missing: tuple[Instance, ...]

    @property
    def is_proved(self) -> bool:
        return bool(self.applied) and not self.missing

    @property
    def verdict(self) -> str:
        """For people."""
        if self.is_proved:
            return "proved"
        return f"not proved, missing {', '.join(_name(each) for each in self.missing) or 'every instance'}"


def prove(instances: Iterable[Instance], target: Target, now: datetime) -> Proof:
    """Whether all that count have applied a state."""
    counting = sorted((each for each in instances if each.counts(now)), key=_name)
    return Proof(
        applied=tuple(Applied(each, _told_at(each, target)) for each in counting if has_applied(each, target)),
        missing=tuple(each for each in counting if not has_applied(each, target)),
    )


def has_applied(instance: Instance, target: Target) -> bool:
    """Whether an instance told of the event, or has come past it in the same topic."""
    if _told_at(instance, target) is not None:
        return True
    reached = instance.positions.get(target.partition)
    return (
        reached is not None
        and target.position is not None
        and reached.topic_id == target.position.topic_id
        and reached.next_offset >= target.position.next_offset
    )


def newest_word(instances: Iterable[Instance], now: datetime) -> datetime | None:
    """Up to when the fleet was heard; None where nobody was."""
    return max((each.last_seen for each in instances if each.last_seen <= now + AHEAD_AT_MOST), default=None)


def check_heard(as_of: datetime | None, now: datetime) -> datetime:
    """Raises FleetUnheardError."""
    if as_of is None or now - as_of > HEARD_WITHIN:
        raise FleetUnheardError
    return as_of


def _told_at(instance: Instance, target: Target) -> datetime | None:
    return None if target.event_id is None else instance.applied_at.get(target.event_id)


def _name(instance: Instance) -> str:
    return f"{instance.service or 'unreadable'} {instance.id}"
