"""The rates of a day, and what an amount of that day is in another currency."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Final

from contracts.errors import DomainError, Kind
from contracts.exchange import THROUGH_BASE_DIGITS, ExchangeRate, RateInvalidError
from contracts.money import MINOR_UNIT_DIGITS, CurrencyUnknownError
from services.finance.postings.rules import has_come


class RatesUnknownError(DomainError):
    """Also for another company's: the two answers are equal."""

    kind = Kind.NOT_FOUND
    code = "rates_unknown"
    title = "There are no such rates"

    def __init__(self) -> None:
        super().__init__("This company has no rates with this id.")


class RatesDateRefusedError(DomainError):
    kind = Kind.INVALID
    code = "rates_date_refused"
    title = "There cannot be rates of this day"
    pointer = "/day"


class BaseUnknownError(CurrencyUnknownError):
    """As of any currency, at the place where the base is said."""

    pointer = "/base"


class RatesInvalidError(DomainError):
    """Which one and why is in the detail."""

    kind = Kind.INVALID
    code = "rates_invalid"
    title = "One of these is not an exchange rate"
    pointer = "/rates"


class NoRateError(DomainError):
    """The rate of another day is not taken instead, and none is made by turning another round."""

    kind = Kind.CONFLICT
    code = "no_rate"
    title = "There is no rate for this day"


class TargetUnknownError(CurrencyUnknownError):
    """As of any currency, at the place where a total is asked for in it."""

    pointer = "?currency"


_ONCE: Final = Fraction(1)
#: Rates are the whole company's, so they are not for those to set who are bound to a part of it.
SCOPE: Final[Mapping[str, None]] = {"business_unit": None, "event": None}


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The rates of a day from one source: one unit of `base` is `values[quote]` of the quote."""

    day: date
    base: str
    source: str
    values: Mapping[str, Decimal]

    def rate(self, quote: str) -> ExchangeRate:
        """Raises NoRateError."""
        if quote not in self.values:
            raise NoRateError(f"The rates of {self.day} say nothing of {quote}.", day=str(self.day), currency=quote)
        return ExchangeRate(self.base, quote, self.values[quote], self.source, self.day)


def check_rates(rates: Rates, today: date) -> None:
    """Raises RatesDateRefusedError, BaseUnknownError or RatesInvalidError."""
    if not has_come(rates.day, today):
        raise RatesDateRefusedError(f"{rates.day} has not come yet.")
    if rates.base not in MINOR_UNIT_DIGITS:
        raise BaseUnknownError(f"{rates.base!r} is not an ISO 4217 currency.")
    if not rates.values:
        raise RatesInvalidError("There is none.")
    for quote in rates.values:
        if quote not in MINOR_UNIT_DIGITS:
            raise RatesInvalidError(f"{quote!r} is not an ISO 4217 currency.", quote=quote)
        try:
            rates.rate(quote)
        except RateInvalidError as error:
            raise RatesInvalidError(f"{quote}: {error.detail}", quote=quote) from None


def check_target(currency: str) -> None:
    """Raises TargetUnknownError."""
    if currency not in MINOR_UNIT_DIGITS:
        raise TargetUnknownError(f"{currency!r} is not an ISO 4217 currency.")


def steps(currency: str, day: date, target: str, rates: Rates | None) -> tuple[Fraction, Fraction]:
    """What an amount of a day is converted by, as two numbers: minor units of the target are those of the currency,
    times the first, half up, times the second, half up. It is what `contracts.exchange` says of one amount, for where
    thousands are converted at once. Between two currencies of which neither is the base the way leads through it.

    `rates` are those of the day, None where there are none. Raises NoRateError.
    """
    if rates is None:
        raise NoRateError(f"There are no rates of {day}.", day=str(day), currency=currency)
    digits, target_digits = MINOR_UNIT_DIGITS[currency], MINOR_UNIT_DIGITS[target]
    if currency == rates.base:
        value, unit = rates.rate(target).value.as_integer_ratio()
        return _times_ten_to(target_digits - digits, value, unit), _ONCE
    value, unit = rates.rate(currency).value.as_integer_ratio()
    if target == rates.base:
        return _times_ten_to(target_digits - digits, unit, value), _ONCE
    to_base = _times_ten_to(THROUGH_BASE_DIGITS - digits, unit, value)
    value, unit = rates.rate(target).value.as_integer_ratio()
    return to_base, _times_ten_to(target_digits - THROUGH_BASE_DIGITS, value, unit)


def _times_ten_to(power: int, numerator: int, denominator: int) -> Fraction:
    # Of whole numbers, because every operation of fractions looks for a common divisor.
    return Fraction(numerator * 10 ** max(power, 0), denominator * 10 ** max(-power, 0))
