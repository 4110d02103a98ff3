from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.exchange import ExchangeRate, RateInvalidError, RateOfOtherCurrenciesError, convert_through_base
from contracts.money import Money

DAY = date(2026, 5, 21)


def rate(quote: str, value: str, base: str = "EUR") -> ExchangeRate:
    return ExchangeRate(base, quote, Decimal(value), "ECB", DAY)


#: Slovenia's, of 2007: the currency is gone, its worked examples stay.
TOLAR = rate("SIT", "239.640")


@pytest.mark.parametrize(("tolars", "euros"), [("500", "2.09"), ("1000", "4.17"), ("-500", "-2.09"), ("0", "0.00")])
def test_published_conversions_come_out_to_the_cent(tolars: str, euros: str) -> None:
    assert str(TOLAR.base_amount(Decimal(tolars), digits=2)) == euros


def test_a_rate_is_divided_by_and_never_inverted() -> None:
    assert TOLAR.base_amount(Decimal(10_000_000), digits=2) == Decimal("41729.26")
    inverted = Decimal("0.00417293")
    assert (Decimal(10_000_000) * inverted).quantize(Decimal("0.01")) != Decimal("41729.26")


def test_both_ways_of_a_rate() -> None:
    dollar = rate("USD", "1.0876")
    assert dollar.convert(Money(10000, "EUR")) == Money(10876, "USD")
    assert dollar.convert(Money(10876, "USD")) == Money(10000, "EUR")
    assert rate("JPY", "163.45").convert(Money(1000, "EUR")) == Money(1635, "JPY")
    with pytest.raises(RateOfOtherCurrenciesError):
        dollar.convert(Money(1, "GBP"))


def test_between_two_currencies_the_way_leads_through_the_base_with_three_decimals() -> None:
    dollar, pound = rate("USD", "1.0876"), rate("GBP", "0.85123")
    assert convert_through_base(Money(100, "USD"), dollar, pound) == Money(78, "GBP")
    # 1.00 USD is 0.919 EUR and that 16,220.44 IDR; without the amount in between it would be 16,228.48.
    assert convert_through_base(Money(100, "USD"), dollar, rate("IDR", "17650.1")) == Money(1622044, "IDR")
    for wrong in ((Money(100, "GBP"), dollar, pound), (Money(100, "USD"), dollar, rate("GBP", "0.8", base="CHF"))):
        with pytest.raises(RateOfOtherCurrenciesError):
            convert_through_base(*wrong)


@given(st.integers(-(10**12), 10**12), st.integers(1, 999_999), st.integers(-5, 3))
def test_an_amount_is_within_half_a_unit_of_the_exact_one(minor: int, figures: int, exponent: int) -> None:
    dollar = ExchangeRate("EUR", "USD", Decimal(figures).scaleb(exponent), "ECB", DAY)
    exact = Fraction(minor) / Fraction(dollar.value)
    if abs(exact) < 10**15:
        assert abs(dollar.convert(Money(minor, "USD")).amount_minor - exact) <= Fraction(1, 2)


@pytest.mark.parametrize("value", ["0", "-1", "NaN", "Infinity", "1.234567890123", "1234567890123", "239.6400000000"])
def test_what_has_too_many_figures_is_refused_and_never_rounded(value: str) -> None:
    with pytest.raises(RateInvalidError):
        rate("USD", value)


def test_a_rate_is_no_float_and_between_two_currencies() -> None:
    with pytest.raises(RateInvalidError):
        ExchangeRate("EUR", "USD", 1.1, "ECB", DAY)  # type: ignore[arg-type]
    with pytest.raises(RateInvalidError):
        rate("EUR", "1")
