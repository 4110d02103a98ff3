from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.money import (
    AMOUNT_MINOR_MAX,
    MINOR_UNIT_DIGITS,
    AmountInvalidError,
    CurrenciesDifferError,
    CurrencyUnknownError,
    Money,
    WeightsInvalidError,
    half_up,
    total,
)

AMOUNTS = st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX)
WEIGHTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=12).filter(any)


@given(st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX), st.sampled_from(sorted(MINOR_UNIT_DIGITS)))
def test_what_is_written_is_read_again(amount_minor: int, currency: str) -> None:
    money = Money(amount_minor, currency)
    assert Money.parse(str(money), currency) == money
    assert str(money) == f"{money.major:f}"


@pytest.mark.parametrize(
    ("text", "currency", "amount_minor"),
    [("199", "USD", 19900), ("0.05", "EUR", 5), ("12", "JPY", 12), ("1.234", "BHD", 1234), ("-7.5", "USD", -750)],
)
def test_the_minor_unit_is_the_currencys(text: str, currency: str, amount_minor: int) -> None:
    assert Money.parse(text, currency).amount_minor == amount_minor


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("0.001", "USD"),
        ("1.5", "JPY"),
        ("1.2345", "BHD"),
        ("", "USD"),
        ("1,50", "USD"),
        ("1e3", "USD"),
        ("NaN", "USD"),
        ("Infinity", "USD"),
        (".5", "USD"),
        ("5.", "USD"),
        ("+1", "USD"),
        ("--1", "USD"),
        (" 1", "USD"),
        ("\u0661", "USD"),
        ("1_000", "USD"),
        ("9" * 17, "USD"),
        ("9" * 500, "USD"),
    ],
)
def test_what_is_no_amount_of_the_currency_is_refused_and_never_rounded(text: str, currency: str) -> None:
    with pytest.raises(AmountInvalidError):
        Money.parse(text, currency)


@pytest.mark.parametrize("currency", ["", "usd", "XXX", "EURO", "XAU"])
def test_what_is_no_currency_is_refused(currency: str) -> None:
    with pytest.raises(CurrencyUnknownError):
        Money.parse("1", currency)
    with pytest.raises(CurrencyUnknownError):
        Money(1, currency)


def test_the_exponents_domain_names_are_right() -> None:
    assert {MINOR_UNIT_DIGITS[code] for code in ("JPY", "KRW", "VND")} == {0}
    assert {MINOR_UNIT_DIGITS[code] for code in ("BHD", "KWD", "JOD", "OMR", "TND")} == {3}
    assert {MINOR_UNIT_DIGITS[code] for code in ("USD", "EUR", "GBP")} == {2}


@given(st.decimals(-(10**9), 10**9, places=6), st.sampled_from(sorted(MINOR_UNIT_DIGITS)))
def test_a_line_is_rounded_half_up_to_the_minor_unit(amount: Decimal, currency: str) -> None:
    unit = Decimal(1).scaleb(-MINOR_UNIT_DIGITS[currency])
    assert Money.rounded(amount, currency).major == amount.quantize(unit, ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        (None, None, Money(150, "USD")),
        ("2", None, Money(200, "USD")),
        (None, "EUR", Money(150, "EUR")),
        (None, "BHD", Money(1500, "BHD")),
        ("2", "JPY", Money(2, "JPY")),
    ],
)
def test_either_text_of_an_amount_is_edited_by_itself(
    amount: str | None, currency: str | None, expected: Money
) -> None:
    assert Money(150, "USD").edited(amount, currency) == expected
    with pytest.raises(AmountInvalidError):
        Money(150, "USD").edited(None, "JPY")


@pytest.mark.parametrize(
    ("number", "whole"),
    [
        ("0.5", 1),
        ("-0.5", -1),
        ("1.5", 2),
        ("2.5", 3),
        ("0.4999999999999999999999999999999999999999", 0),
        ("-2.49", -2),
    ],
)
def test_half_a_unit_goes_away_from_zero_and_less_than_half_never_does(number: str, whole: int) -> None:
    assert half_up(Fraction(number)) == whole


@given(AMOUNTS, WEIGHTS)
def test_parts_always_sum_to_the_whole_and_none_is_a_unit_away_from_its_share(minor: int, weights: list[int]) -> None:
    whole = Money(minor, "EUR")
    parts = whole.allocate(weights)
    assert total(parts, "EUR") == whole
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part.amount_minor - Fraction(minor * weight, sum(weights))) < 1
        assert (part.amount_minor == 0) or weight > 0
    assert (-whole).allocate(weights) == [-part for part in parts]


@given(AMOUNTS, WEIGHTS)
def test_who_has_the_larger_share_gets_no_less(minor: int, weights: list[int]) -> None:
    parts = Money(abs(minor), "EUR").allocate(weights)
    by_weight = sorted(zip(weights, (part.amount_minor for part in parts), strict=True))
    for (smaller, less), (larger, more) in pairwise(by_weight):
        assert less <= more or smaller == larger


def test_units_left_over_go_to_the_largest_remainders_and_the_earlier_of_equals() -> None:
    def parts(minor: int, *weights: int) -> list[int]:
        return [part.amount_minor for part in Money(minor, "EUR").allocate(weights)]

    assert parts(100, 1, 1, 1) == [34, 33, 33]
    assert parts(-100, 1, 1, 1) == [-34, -33, -33]
    assert parts(10, 55, 25, 20) == [6, 2, 2]
    assert parts(5, 0, 1) == [0, 5]
    assert parts(1, 3, 4) == [0, 1]


@pytest.mark.parametrize("weights", [[], [0], [0, 0], [2, -1], [-1]])
def test_what_is_no_share_divides_nothing(weights: list[int]) -> None:
    with pytest.raises(WeightsInvalidError):
        Money(100, "EUR").allocate(weights)


@given(AMOUNTS, AMOUNTS)
def test_sums_and_differences_are_of_one_currency(one: int, other: int) -> None:
    if abs(one + other) <= AMOUNT_MINOR_MAX:
        assert Money(one, "EUR") + Money(other, "EUR") == Money(one + other, "EUR")
        assert Money(one, "EUR") + Money(other, "EUR") - Money(other, "EUR") == Money(one, "EUR")
    with pytest.raises(CurrenciesDifferError):
        Money(one, "EUR") + Money(other, "USD")
    with pytest.raises(CurrenciesDifferError):
        Money(one, "EUR") - Money(other, "USD")
    with pytest.raises(CurrenciesDifferError):
        total([Money(one, "EUR")], "USD")


def test_a_sum_beyond_what_money_can_be_is_refused() -> None:
    with pytest.raises(AmountInvalidError):
        Money(2**63 - 1, "EUR") + Money(1, "EUR")
    assert (Money(AMOUNT_MINOR_MAX, "EUR") + Money(1, "EUR")).amount_minor == AMOUNT_MINOR_MAX + 1


def test_a_share_is_rounded_once() -> None:
    assert Money(500000, "EUR").share(Decimal("0.15825")) == Money(79125, "EUR")
    assert Money(5, "EUR").share(Fraction(1, 2)) == Money(3, "EUR")
    assert Money(-5, "EUR").share(Fraction(1, 2)) == Money(-3, "EUR")
