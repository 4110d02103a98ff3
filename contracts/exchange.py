"""Exchange rates, and conversion by the rules the euro was introduced with (Regulation (EC) No 1103/97, articles 4, 5).

A rate is used as it was published, in both directions: an amount is multiplied by it or divided by it, never by an
inverse of it. Between two currencies the way leads through the one both rates are based on.
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from contracts.errors import DomainError, Kind
from contracts.money import Money, half_up

#: The conversion rates of the euro had six (article 4), rates of markets have more: those of the rupiah seven.
SIGNIFICANT_FIGURES_MAX: Final = 12
#: Decimals of the amount in between, of the base currency, where a conversion goes through it.
THROUGH_BASE_DIGITS: Final = 3


class RateInvalidError(DomainError):
    kind = Kind.INVALID
    code = "rate_invalid"
    title = "This is not an exchange rate"
    pointer = "/value"


class RateOfOtherCurrenciesError(DomainError):
    kind = Kind.INVALID
    code = "rate_of_other_currencies"
    title = "This rate says nothing of these currencies"


@dataclass(frozen=True)
class ExchangeRate:
    """One `base` is `value` of `quote`, as `source` published it for a day. Its currencies may be historic ones."""

    base: str
    quote: str
    value: Decimal
    source: str
    day: date

    def __post_init__(self) -> None:
        """Raises RateInvalidError."""
        given: Any = self.value
        if not isinstance(given, Decimal) or not given.is_finite() or given <= 0:
            raise RateInvalidError("A rate is a decimal number above 0.")
        if len(self.value.as_tuple().digits) > SIGNIFICANT_FIGURES_MAX:
            raise RateInvalidError(f"A rate has at most {SIGNIFICANT_FIGURES_MAX} significant figures: {self.value}")
        if self.base == self.quote:
            raise RateInvalidError("A rate is between two currencies.")

    def quote_amount(self, base_amount: Decimal, *, digits: int) -> Decimal:
        """What an amount of the base is in the quote, half up to this many decimals."""
        return _rounded(Fraction(base_amount) * Fraction(self.value), digits)

    def base_amount(self, quote_amount: Decimal, *, digits: int) -> Decimal:
        """What an amount of the quote is in the base, half up to this many decimals."""
        return _rounded(Fraction(quote_amount) / Fraction(self.value), digits)

    def convert(self, amount: Money) -> Money:
        """An amount of one of the two currencies in the other. Raises RateOfOtherCurrenciesError."""
        if amount.currency == self.base:
            return Money.rounded(Fraction(amount.major) * Fraction(self.value), self.quote)
        if amount.currency == self.quote:
            return Money.rounded(Fraction(amount.major) / Fraction(self.value), self.base)
        raise RateOfOtherCurrenciesError(f"{self.base}/{self.quote} converts no {amount.currency}.")


def convert_through_base(amount: Money, source: ExchangeRate, target: ExchangeRate) -> Money:
    """An amount of `source.quote` in `target.quote`, through the base of both (the euro, in the tables of its bank).

    The amount in between is rounded half up to three decimals. Raises RateOfOtherCurrenciesError.
    """
    if source.base != target.base or amount.currency != source.quote:
        raise RateOfOtherCurrenciesError(
            f"{source.base}/{source.quote} and {target.base}/{target.quote} lead {amount.currency} nowhere."
        )
    between = source.base_amount(amount.major, digits=THROUGH_BASE_DIGITS)
    return Money.rounded(Fraction(between) * Fraction(target.value), target.quote)


def _rounded(number: Fraction, digits: int) -> Decimal:
    return Decimal(half_up(number * 10**digits)).scaleb(-digits)
