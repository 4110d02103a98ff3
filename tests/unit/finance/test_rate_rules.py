from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contracts.money import Money, half_up
from services.finance.expenses.rules import ExpenseState, Totals
from services.finance.rates.rules import (
    BaseUnknownError,
    NoRateError,
    Rates,
    RatesDateRefusedError,
    RatesInvalidError,
    TargetUnknownError,
    check_rates,
    check_target,
    steps,
)
from tests.harness.conversion import converted

TODAY = date(2026, 5, 21)
RATES = Rates(
    day=TODAY,
    base="EUR",
    source="ECB",
    values={"USD": Decimal("1.0823"), "GBP": Decimal("0.85630"), "JPY": Decimal("162.35")},
)


def with_(**changed: Any) -> Rates:
    given: dict[str, Any] = {"day": TODAY, "base": "EUR", "source": "ECB", "values": RATES.values, **changed}
    return Rates(**given)


@pytest.mark.parametrize(
    ("amount", "target", "expected"),
    [
        (Money(10000, "EUR"), "USD", Money(10823, "USD")),
        # Divided by the rate and not multiplied by its inverse, which is 0.923958 in six figures.
        (Money(100000000, "USD"), "EUR", Money(92395824, "EUR")),
        (Money(10000, "USD"), "USD", Money(10000, "USD")),
        # 100 / 1.0823 = 92.396 in euros of three decimals; times 0.8563 is 79.1187.
        (Money(10000, "USD"), "GBP", Money(7912, "GBP")),
        (Money(1000, "JPY"), "USD", Money(667, "USD")),
        (Money(1, "JPY"), "EUR", Money(1, "EUR")),
    ],
)
def test_an_amount_is_converted_with_the_rate_as_it_was_published(amount: Money, target: str, expected: Money) -> None:
    assert converted(amount, target, RATES) == expected


def test_without_the_rate_of_the_day_nothing_is_converted() -> None:
    for currency, target, rates in (
        ("USD", "EUR", None),
        ("CHF", "EUR", RATES),
        ("EUR", "CHF", RATES),
        ("CHF", "USD", RATES),
        ("USD", "CHF", RATES),
    ):
        with pytest.raises(NoRateError):
            steps(currency, TODAY, target, rates)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"day": TODAY + timedelta(days=2)}, RatesDateRefusedError),
        ({"base": "XXX"}, BaseUnknownError),
        ({"values": {}}, RatesInvalidError),
        ({"values": {"XXX": Decimal(1)}}, RatesInvalidError),
        ({"values": {"EUR": Decimal(1)}}, RatesInvalidError),
        ({"values": {"USD": Decimal(0)}}, RatesInvalidError),
        ({"values": {"USD": Decimal("1.082312345678")}}, RatesInvalidError),
    ],
)
def test_what_are_no_rates_is_refused(changed: dict[str, Any], error: type[Exception]) -> None:
    check_rates(with_(day=TODAY + timedelta(days=1)), TODAY)
    with pytest.raises(error):
        check_rates(with_(**changed), TODAY)


def test_a_total_is_in_a_currency_there_is() -> None:
    check_target("BHD")
    with pytest.raises(TargetUnknownError):
        check_target("eur")


LINES = st.lists(
    st.tuples(
        st.sampled_from(ExpenseState),
        st.builds(Money, st.integers(1, 10**10), st.sampled_from(["EUR", "USD", "GBP", "JPY"])),
    ),
    max_size=40,
)


@given(LINES, st.sampled_from(["EUR", "USD", "JPY"]), st.randoms(use_true_random=False))
def test_totals_re_add_to_their_lines_in_whatever_order_these_come(
    lines: list[tuple[ExpenseState, Money]], currency: str, random: Any
) -> None:
    each_converted = [(state, converted(amount, currency, RATES)) for state, amount in lines]
    sums = Totals(currency)
    for state, amount in random.sample(each_converted, len(lines)):
        sums.add(state, 1, amount)
    assert sums.whole.expenses == len(lines)
    assert sums.whole.amount.amount_minor == sum(amount.amount_minor for _, amount in each_converted)
    assert sums.whole.amount.amount_minor == sum(total.amount.amount_minor for _, total in sums.by_state)
    for state, total in sums.by_state:
        own = [amount.amount_minor for of_state, amount in each_converted if of_state is state]
        assert (total.expenses, total.amount.amount_minor) == (len(own), sum(own))


@given(
    st.integers(1, 10**6),
    st.sampled_from(["EUR", "USD", "JPY", "BHD"]),
    st.sampled_from(["EUR", "USD", "JPY", "BHD"]),
    st.lists(st.integers(1, 999_999), min_size=3, max_size=3),
)
def test_the_two_steps_are_the_conversion(minor: int, source: str, target: str, values: list[int]) -> None:
    assume(source != target)
    day = date(2026, 5, 21)
    rates = Rates(
        day=day,
        base="EUR",
        source="a bank",
        values={quote: Decimal(value).scaleb(-4) for quote, value in zip(("USD", "JPY", "BHD"), values, strict=True)},
    )
    first, second = steps(source, day, target, rates)
    assert half_up(half_up(minor * first) * second) == converted(Money(minor, source), target, rates).amount_minor
