import calendar
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.events.checkout import Item
from services.checkout.offline_provider.rules import (
    PaymentExpiredError,
    PaymentSettledError,
    PaymentStatus,
    new_reference,
    pause_after,
    settles,
)
from services.checkout.subscriptions.rules import (
    Held,
    SubscriptionStatus,
    SubscriptionUnknownError,
    cancellation,
    chosen,
    effective_at,
    live_of,
    month_after,
    trial_end,
)

NOW = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
_INSTANTS = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001  Hypothesis adds the zone
    max_value=datetime(2060, 1, 1),  # noqa: DTZ001  the same
    timezones=st.just(UTC),
)


def held(number: int, *, base: str | None, ends_at: datetime = NOW + timedelta(days=20)) -> Held:
    return Held(
        id=UUID(int=number),
        status=SubscriptionStatus.ACTIVE,
        items=frozenset({Item(kind="package", key=f"item_{number}")}),
        base_module=base,
        anchor_at=NOW,
        period_end=NOW + timedelta(days=20),
        ends_at=ends_at,
    )


def test_a_trial_of_seven_days_is_seven_times_24_hours() -> None:
    assert trial_end(datetime(2026, 3, 28, 12, 30, 15, tzinfo=UTC), 7) == datetime(2026, 4, 4, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("anchor", "start", "end"),
    [
        ((2026, 5, 21), (2026, 5, 21), (2026, 6, 21)),
        ((2026, 12, 15), (2026, 12, 15), (2027, 1, 15)),
        ((2026, 1, 31), (2026, 1, 31), (2026, 2, 28)),
        ((2026, 1, 31), (2026, 2, 28), (2026, 3, 31)),
        ((2028, 1, 31), (2028, 1, 31), (2028, 2, 29)),
    ],
)
def test_a_month_ends_on_the_anchor_s_day_or_on_the_last_there_is(
    anchor: tuple[int, int, int], start: tuple[int, int, int], end: tuple[int, int, int]
) -> None:
    found = month_after(datetime(*anchor, tzinfo=UTC), datetime(*start, tzinfo=UTC))
    assert found == datetime(*end, tzinfo=UTC)


@given(anchor=_INSTANTS, count=st.integers(min_value=1, max_value=30))
def test_months_follow_one_another_without_gap_and_never_lose_the_anchor_s_day(anchor: datetime, count: int) -> None:
    start = anchor
    for number in range(1, count + 1):
        end = month_after(anchor, start)
        assert timedelta(days=28) <= end - start <= timedelta(days=31)
        assert end.day == min(anchor.day, calendar.monthrange(end.year, end.month)[1])
        assert (end.year - anchor.year) * 12 + end.month - anchor.month == number
        start = end


def test_a_cancellation_is_now_or_with_the_period_and_never_later_than_before() -> None:
    running = held(1, base="promoter")
    assert cancellation(running, "now", NOW) == NOW
    assert cancellation(running, "period_end", NOW) == running.period_end
    sooner = held(1, base="promoter", ends_at=NOW + timedelta(days=1))
    assert cancellation(sooner, "period_end", NOW) == sooner.ends_at


def test_a_subscription_is_live_until_the_instant_it_ends() -> None:
    subscription = held(1, base=None)
    assert live_of([subscription], subscription.ends_at - timedelta(microseconds=1)) == [subscription]
    assert live_of([subscription], subscription.ends_at) == []


def test_without_an_id_the_subscription_of_the_base_is_meant() -> None:
    addon, base = held(1, base=None), held(2, base="venue")
    assert chosen([addon, base], None) is base
    assert chosen([addon, base], addon.id) is addon
    for subscriptions, number in (([addon], None), ([], None), ([addon, base], UUID(int=3))):
        with pytest.raises(SubscriptionUnknownError):
            chosen(subscriptions, number)


def test_a_later_fact_never_has_an_earlier_instant() -> None:
    assert effective_at(NOW, NOW + timedelta(seconds=2)) == NOW + timedelta(seconds=2)
    assert effective_at(NOW, NOW - timedelta(seconds=2)) == NOW


# The offline provider's own rules.


def test_a_payment_is_settled_once_and_saying_it_again_is_no_news() -> None:
    expires_at = NOW + timedelta(hours=1)
    assert settles(PaymentStatus.PENDING, PaymentStatus.SUCCEEDED, expires_at=expires_at, now=NOW)
    assert not settles(PaymentStatus.SUCCEEDED, PaymentStatus.SUCCEEDED, expires_at=expires_at, now=expires_at)
    with pytest.raises(PaymentSettledError):
        settles(PaymentStatus.FAILED, PaymentStatus.SUCCEEDED, expires_at=expires_at, now=NOW)
    with pytest.raises(PaymentExpiredError):
        settles(PaymentStatus.PENDING, PaymentStatus.SUCCEEDED, expires_at=expires_at, now=expires_at)


def test_pauses_double_from_a_second_to_an_hour() -> None:
    assert [pause_after(attempts).total_seconds() for attempts in (1, 2, 3, 12, 13, 10_000)] == [
        1,
        2,
        4,
        2048,
        3600,
        3600,
    ]


def test_a_reference_cannot_be_guessed() -> None:
    assert len({new_reference() for _ in range(1000)}) == 1000
    assert len(new_reference()) == len("pay_") + 32
