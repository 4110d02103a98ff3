from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.auth.signing_keys import rules
from services.auth.signing_keys.rules import PUBLICATION_LEAD, SIGNING_PERIOD, SUCCESSOR_LEAD, Period

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)


def test_the_first_key_signs_at_once() -> None:
    first = rules.next_period([], NOW)
    assert first is not None
    assert rules.may_sign(first.not_before, first.not_after, NOW)


def test_a_successor_is_made_ahead_and_signs_when_the_last_key_ends() -> None:
    first = rules.next_period([], NOW)
    assert first is not None
    end = NOW + SIGNING_PERIOD
    assert rules.next_period([first], end - SUCCESSOR_LEAD - timedelta(seconds=1)) is None
    successor = rules.next_period([first], end - SUCCESSOR_LEAD)
    assert successor is not None
    assert successor.not_before == end
    assert rules.next_period([first, successor], end) is None


def test_after_an_outage_the_successor_waits_until_every_reader_knows_it() -> None:
    long_ago = Period(NOW - timedelta(days=200), NOW - timedelta(days=110))
    successor = rules.next_period([long_ago], NOW)
    assert successor is not None
    assert successor.not_before == NOW + PUBLICATION_LEAD
    pending = rules.SigningKeyPendingError(successor.not_before, NOW)
    assert pending.retry_after_seconds == PUBLICATION_LEAD.total_seconds()


@given(st.lists(st.integers(min_value=0, max_value=200 * 24 * 60), max_size=30))
def test_every_key_but_the_first_is_published_long_enough_before_it_signs_and_no_two_sign_at_once(
    steps_minutes: list[int],
) -> None:
    now, periods = NOW, list[Period]()
    for minutes in steps_minutes:
        now += timedelta(minutes=minutes)
        due = rules.next_period(periods, now)
        if due is not None:
            assert not periods or due.not_before >= now + PUBLICATION_LEAD
            periods.append(due)
        assert sum(rules.may_sign(each.not_before, each.not_after, now) for each in periods) <= 1
