import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.money import AMOUNT_MINOR_MAX, MINOR_UNIT_DIGITS, AmountInvalidError, CurrencyUnknownError, Money


@given(st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX), st.sampled_from(sorted(MINOR_UNIT_DIGITS)))
def test_what_is_written_is_read_again(amount_minor: int, currency: str) -> None:
    money = Money(amount_minor, currency)
    assert Money.parse(str(money), currency) == money


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
