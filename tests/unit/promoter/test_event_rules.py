from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
DATELESS = replace(WHOLE, starts_at=None, ends_at=None)
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


#: What somebody may try: to make a move, or to write other details.
ATTEMPTS = st.lists(st.sampled_from([*sorted(MOVES.moves), BARE, WHOLE]), max_size=40)


@given(ATTEMPTS)
def test_whatever_is_tried_in_whatever_order_leads_to_no_state_but_by_a_legal_way(
    attempts: list[str | EventDetails],
) -> None:
    state, details = EventState.DRAFT, BARE
    for attempt in attempts:
        before = state
        try:
            if isinstance(attempt, str):
                details, state = moved(details, before, attempt)
                assert (before.value, attempt, state.value) in LEGAL
            else:
                check_details(attempt, state)
                details = attempt
        except IllegalMoveError:
            assert attempt not in {move for source, move, _ in LEGAL if source == before.value}
        except EventIncompleteError:
            assert {BARE, DATELESS} & {details, attempt}
        assert state not in COMPLETE_STATES or details == WHOLE


def test_a_space_or_a_venue_is_a_place() -> None:
    for details in (WHOLE, replace(WHOLE, venue_text=None, space_id=new_id())):
        assert moved(details, EventState.HOLD, "confirm") == (details, EventState.CONFIRMED)


@pytest.mark.parametrize("state", ["hold", "confirmed", "announced", "on_sale"])
def test_what_is_postponed_has_no_date_and_all_else_it_had(state: str) -> None:
    assert moved(WHOLE, EventState(state), "postpone") == (DATELESS, EventState.POSTPONED)
    assert moved(DATELESS, EventState.POSTPONED, "plan") == (DATELESS, EventState.HOLD)
    assert moved(WHOLE, EventState.POSTPONED, "plan") == (WHOLE, EventState.HOLD)


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
    assert clone == DATELESS
    assert clone_of(WHOLE, "Again").title == "Again"
