"""What an event is, which states it passes, and what it needs in each."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from contracts.errors import DomainError, Kind
from contracts.money import MINOR_UNIT_DIGITS, CurrencyUnknownError
from contracts.transitions import Move, StateMachine


class EventState(StrEnum):
    DRAFT = "draft"
    HOLD = "hold"
    CONFIRMED = "confirmed"
    ANNOUNCED = "announced"
    ON_SALE = "on_sale"
    IN_SETTLEMENT = "in_settlement"
    SETTLED = "settled"
    CANCELLED = "cancelled"
    POSTPONED = "postponed"


class EventUnknownError(DomainError):
    """Also for another company's event: the two answers are equal."""

    kind = Kind.NOT_FOUND
    code = "event_unknown"
    title = "There is no such event"

    def __init__(self) -> None:
        super().__init__("This company has no event with this id.")


class EventTimesInvalidError(DomainError):
    kind = Kind.INVALID
    code = "event_times_invalid"
    title = "These cannot be an event's times"
    pointer = "/starts_at"


class TimeZoneUnknownError(DomainError):
    kind = Kind.INVALID
    code = "time_zone_unknown"
    title = "This is not a time zone"
    pointer = "/time_zone"


class EventIncompleteError(DomainError):
    """What an event has to say before it is confirmed, it goes on saying afterwards."""

    kind = Kind.CONFLICT
    code = "event_incomplete"
    title = "The event does not say all that a confirmed one must"


class EventClosedError(DomainError):
    kind = Kind.CONFLICT
    code = "event_closed"
    title = "The event is over and is not changed any more"


_STATE = EventState

#: A postponed event has no date until it is given its new one, and is planned again.
MOVES: Final = StateMachine(
    (
        Move("plan", frozenset({_STATE.DRAFT, _STATE.POSTPONED}), _STATE.HOLD),
        Move("confirm", frozenset({_STATE.HOLD}), _STATE.CONFIRMED),
        Move("announce", frozenset({_STATE.CONFIRMED}), _STATE.ANNOUNCED),
        Move("put-on-sale", frozenset({_STATE.ANNOUNCED}), _STATE.ON_SALE),
        Move("begin-settlement", frozenset({_STATE.ON_SALE}), _STATE.IN_SETTLEMENT),
        Move("settle", frozenset({_STATE.IN_SETTLEMENT}), _STATE.SETTLED),
        Move(
            "postpone",
            frozenset({_STATE.HOLD, _STATE.CONFIRMED, _STATE.ANNOUNCED, _STATE.ON_SALE}),
            _STATE.POSTPONED,
        ),
        Move(
            "cancel",
            frozenset(
                {_STATE.DRAFT, _STATE.HOLD, _STATE.CONFIRMED, _STATE.ANNOUNCED, _STATE.ON_SALE, _STATE.POSTPONED}
            ),
            _STATE.CANCELLED,
        ),
    )
)

#: From its confirmation on an event has a date, a place and a currency.
COMPLETE_STATES: Final = frozenset(
    {_STATE.CONFIRMED, _STATE.ANNOUNCED, _STATE.ON_SALE, _STATE.IN_SETTLEMENT, _STATE.SETTLED}
)
_CLOSED_STATES: Final = frozenset({_STATE.SETTLED, _STATE.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class EventDetails:
    """What people write down of an event. It is from `starts_at` up to and without `ends_at`, both in UTC."""

    title: str
    business_unit_id: UUID | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    time_zone: str | None = None
    space_id: UUID | None = None
    venue_text: str | None = None
    currency: str | None = None


def check_details(details: EventDetails, state: EventState) -> None:
    """Raises EventTimesInvalidError, TimeZoneUnknownError, CurrencyUnknownError or EventIncompleteError."""
    _check_times(details)
    if details.currency is not None and details.currency not in MINOR_UNIT_DIGITS:
        raise CurrencyUnknownError(f"{details.currency!r} is not an ISO 4217 currency.", currency=details.currency)
    if state in COMPLETE_STATES:
        _check_complete(details)


def check_open(state: EventState) -> None:
    """Raises EventClosedError for an event whose details stay as they are."""
    if state in _CLOSED_STATES:
        raise EventClosedError(f"It is {state}.", state=str(state))


def moved(details: EventDetails, state: EventState, move: str) -> tuple[EventDetails, EventState]:
    """What the event says after a move, and the state it is in: what is postponed is taken off its date.

    Raises IllegalMoveError or EventIncompleteError.
    """
    reached = MOVES.move(state, move)
    if reached in COMPLETE_STATES:
        _check_complete(details)
    if reached is _STATE.POSTPONED:
        details = replace(details, starts_at=None, ends_at=None)
    return details, reached


def clone_of(details: EventDetails, title: str | None) -> EventDetails:
    """The same event once more: all but its date, which the new one does not have yet."""
    return replace(details, title=title or details.title, starts_at=None, ends_at=None)


def _check_times(details: EventDetails) -> None:
    if (details.starts_at is None) != (details.ends_at is None):
        raise EventTimesInvalidError("An event that has a start has an end, and the other way round.")
    if details.starts_at is not None and details.ends_at is not None:
        if details.starts_at >= details.ends_at:
            raise EventTimesInvalidError("An event ends after it starts.")
        if details.time_zone is None:
            raise TimeZoneUnknownError("A date needs the zone whose clocks it is announced by.")
    if details.time_zone is not None and not _is_zone(details.time_zone):
        raise TimeZoneUnknownError(f"{details.time_zone!r} is not in the IANA database.")


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    # A name that is a path is refused, one that is a folder or too long for a file cannot be read.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _check_complete(details: EventDetails) -> None:
    missing = [
        what
        for is_there, what in (
            (details.starts_at is not None, "a date"),
            (details.space_id is not None or details.venue_text is not None, "a space or a venue"),
            (details.currency is not None, "a currency"),
        )
        if not is_there
    ]
    if missing:
        raise EventIncompleteError(f"It lacks {', '.join(missing)}.", missing=missing)
