from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from contracts.errors import DomainError
from contracts.events.promoter import EventStatus
from contracts.identifiers import new_id
from contracts.money import CurrencyUnknownError
from contracts.transitions import IllegalMoveError
from services.promoter.events.rules import (
    COMPLETE_STATES,
    MOVES,
    EventDetails,
    EventIncompleteError,
    EventState,
    EventTimesInvalidError,
    TimeZoneUnknownError,
    check_details,
    clone_of,
    moved,
)

NOW = datetime(2026, 5, 21, tzinfo=UTC)
BARE = EventDetails(title="Northern Lights")
WHOLE = EventDetails(
    title="Northern Lights",
    starts_at=NOW,
    ends_at=NOW + timedelta(hours=3),
    time_zone="America/New_York",
    venue_text="The old shipyard",
    currency="USD",
)
#: The main way of domain §1.5; its side exits are below.
WAY = ("draft", "hold", "confirmed", "announced", "on_sale", "in_settlement", "settled")
LEGAL = {
    ("draft", "plan", "hold"),
    ("postponed", "plan", "hold"),
    ("hold", "confirm", "confirmed"),
    ("confirmed", "announce", "announced"),
    ("announced", "put-on-sale", "on_sale"),
    ("on_sale", "begin-settlement", "in_settlement"),
    ("in_settlement", "settle", "settled"),
    *((state, "postpone", "postponed") for state in WAY[1:5]),
    *((state, "cancel", "cancelled") for state in (*WAY[:5], "postponed")),
}


def test_the_moves_are_those_of_the_domain_and_no_others() -> None:
    found = {(source.value, name, move.target.value) for name, move in MOVES.moves.items() for source in move.sources}
    assert found == LEGAL


def test_what_is_published_knows_every_state() -> None:
    assert {state.value for state in EventState} == {status.value for status in EventStatus} - {"removed", "unknown"}


class Planning(RuleBasedStateMachine):
    """Whatever is tried in whatever order, an event is only ever where a legal way leads."""

    def __init__(self) -> None:
        super().__init__()
        self.state = EventState.DRAFT
        self.details = BARE

    @rule(name=st.sampled_from(sorted(MOVES.moves)))
    def try_to(self, name: str) -> None:
        before = self.state
        try:
            self.state = moved(self.details, before, name)
        except IllegalMoveError:
            assert name not in {move for state, move, _ in LEGAL if state == before.value}
        except EventIncompleteError:
            assert self.details == BARE
        else:
            assert (before.value, name, self.state.value) in LEGAL

    @rule(details=st.sampled_from([BARE, WHOLE]))
    def try_to_write(self, details: EventDetails) -> None:
        try:
            check_details(details, self.state)
        except EventIncompleteError:
            assert self.state in COMPLETE_STATES
        else:
            self.details = details

    @invariant()
    def a_confirmed_event_is_complete(self) -> None:
        assert self.state not in COMPLETE_STATES or self.details == WHOLE


TestPlanning = Planning.TestCase
TestPlanning.settings = settings(max_examples=40, stateful_step_count=25)


def test_a_space_or_a_venue_is_a_place() -> None:
    for details in (WHOLE, replace(WHOLE, venue_text=None, space_id=new_id())):
        assert moved(details, EventState.HOLD, "confirm") is EventState.CONFIRMED


@pytest.mark.parametrize("absent", ["starts_at", "venue_text", "currency"])
def test_a_confirmed_event_lacks_nothing(absent: str) -> None:
    lacking: dict[str, Any] = {absent: None}
    with pytest.raises(EventIncompleteError):
        moved(replace(WHOLE, **lacking), EventState.HOLD, "confirm")


@given(st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_an_event_ends_after_it_starts(length: timedelta) -> None:
    details = replace(WHOLE, ends_at=NOW + length)
    if length > timedelta(0):
        check_details(details, EventState.DRAFT)
    else:
        with pytest.raises(EventTimesInvalidError):
            check_details(details, EventState.DRAFT)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../posixrules", "/etc/localtime", "America", "x" * 5000, "a\0b"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(TimeZoneUnknownError):
        check_details(replace(WHOLE, time_zone=zone), EventState.DRAFT)


def test_what_is_no_currency_is_refused() -> None:
    with pytest.raises(CurrencyUnknownError):
        check_details(replace(BARE, currency="XXX"), EventState.DRAFT)


@given(st.text(max_size=80))
def test_any_text_is_a_zone_or_refused(zone: str) -> None:
    try:
        check_details(replace(WHOLE, time_zone=zone), EventState.DRAFT)
    except DomainError:
        assert zone not in {"UTC", "Europe/Berlin"}


def test_a_clone_has_everything_but_the_date() -> None:
    clone = clone_of(WHOLE, None)
    assert clone == replace(WHOLE, starts_at=None, ends_at=None)
    assert clone_of(WHOLE, "Again").title == "Again"
