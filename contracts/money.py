"""Money: minor units of an ISO 4217 currency, never a float.

What is published is rounded once per line, half up; what is divided is divided by largest remainder, so that its parts
are the whole (domain §1.0).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final

from contracts.errors import DomainError, Kind

_TWO: Final = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP "
    "CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES "
    "KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK "
    "NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB "
    "TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
_NONE: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE: Final = "BHD IQD JOD KWD LYD OMR TND"

#: Digits of the minor unit per currency (ISO 4217, list one, without funds and precious metals).
MINOR_UNIT_DIGITS: Final[dict[str, int]] = {
    **dict.fromkeys(_TWO.split(), 2),
    **dict.fromkeys(_NONE.split(), 0),
    **dict.fromkeys(_THREE.split(), 3),
}
#: Of one amount that is written down. Sums may be larger, up to what PostgreSQL counts with.
AMOUNT_MINOR_MAX: Final = 2**53 - 1
_SUM_MINOR_MAX: Final = 2**63 - 1


class CurrencyUnknownError(DomainError):
    kind = Kind.INVALID
    code = "currency_unknown"
    title = "This is not a currency"
    pointer = "/currency"


class AmountInvalidError(DomainError):
    kind = Kind.INVALID
    code = "amount_invalid"
    title = "This is not an amount of the currency"
    pointer = "/amount"


class CurrenciesDifferError(DomainError):
    """Amounts of two currencies have no sum: one of them is converted first, at a rate somebody answers for."""

    kind = Kind.INVALID
    code = "currencies_differ"
    title = "These amounts are of different currencies"


class WeightsInvalidError(DomainError):
    kind = Kind.INVALID
    code = "weights_invalid"
    title = "Nothing can be divided by these shares"


@dataclass(frozen=True)
class Money:
    """An amount in the minor unit: Money(19900, "USD") is 199.00 USD."""

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        """Raises CurrencyUnknownError or AmountInvalidError."""
        if self.currency not in MINOR_UNIT_DIGITS:
            raise CurrencyUnknownError(f"{self.currency!r} is not an ISO 4217 currency.", currency=self.currency)
        if abs(self.amount_minor) > _SUM_MINOR_MAX:
            raise AmountInvalidError(f"At most {_SUM_MINOR_MAX} minor units.", currency=self.currency)

    @classmethod
    def parse(cls, amount: str, currency: str) -> "Money":
        """The money a decimal text means; more decimals than the currency has are refused, not rounded.

        Raises CurrencyUnknownError or AmountInvalidError.
        """
        digits = MINOR_UNIT_DIGITS.get(currency)
        if digits is None:
            raise CurrencyUnknownError(f"{currency!r} is not an ISO 4217 currency.", currency=currency)
        facts: dict[str, Any] = {"amount": amount, "currency": currency}
        whole, point, fraction = amount.removeprefix("-").partition(".")
        if not amount.isascii() or not whole.isdigit() or (point and not fraction.isdigit()):
            raise AmountInvalidError("Write digits, and a point before the decimals: 1234.50", **facts)
        if len(fraction) > digits:
            raise AmountInvalidError(f"{currency} has {digits} decimals, {amount} has {len(fraction)}.", **facts)
        try:
            amount_minor = int(Decimal(amount).scaleb(digits))
        except InvalidOperation:
            amount_minor = AMOUNT_MINOR_MAX + 1
        if abs(amount_minor) > AMOUNT_MINOR_MAX:
            raise AmountInvalidError(f"At most {AMOUNT_MINOR_MAX} minor units.", **facts)
        return cls(amount_minor, currency)

    def __str__(self) -> str:
        """The decimal text, with all decimals of the currency: 199.00"""
        return decimal_text(self.amount_minor, self.currency)

    @classmethod
    def rounded(cls, amount: Decimal | Fraction, currency: str) -> "Money":
        """An amount in the currency's major unit, rounded half up to its minor one: the one rounding of a line.

        Raises CurrencyUnknownError or AmountInvalidError.
        """
        digits = MINOR_UNIT_DIGITS.get(currency)
        if digits is None:
            raise CurrencyUnknownError(f"{currency!r} is not an ISO 4217 currency.", currency=currency)
        return cls(half_up(Fraction(amount) * 10**digits), currency)

    def edited(self, amount: str | None, currency: str | None) -> "Money":
        """The money that is meant when either text, or both, is written anew: 1.50 USD in EUR is 1.50 EUR.

        Raises CurrencyUnknownError or AmountInvalidError.
        """
        return Money.parse(str(self) if amount is None else amount, self.currency if currency is None else currency)

    @property
    def major(self) -> Decimal:
        """The amount in the currency's major unit, exactly."""
        return Decimal(self.amount_minor).scaleb(-MINOR_UNIT_DIGITS[self.currency])

    def __add__(self, other: "Money") -> "Money":
        """Raises CurrenciesDifferError or AmountInvalidError."""
        return Money(self.amount_minor + self._of_same_currency(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        """Raises CurrenciesDifferError or AmountInvalidError."""
        return Money(self.amount_minor - self._of_same_currency(other), self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount_minor, self.currency)

    def share(self, portion: Decimal | Fraction) -> "Money":
        """This portion of the amount, rounded half up. Portions of one whole are made with `allocate`."""
        return Money(half_up(self.amount_minor * Fraction(portion)), self.currency)

    def allocate(self, weights: Sequence[int]) -> list["Money"]:
        """The amount divided in proportion to the weights; the parts always sum to it.

        Each part is first cut to whole minor units; the units left over go one each to the largest remainders, the
        earlier first where they are equal. A negative amount is divided as its opposite is. Raises
        WeightsInvalidError for a weight below 0 and where all are 0 or there are none.
        """
        total = sum(weights)
        if total <= 0 or min(weights) < 0:
            raise WeightsInvalidError("Shares are whole numbers, none below 0 and one above.", weights=list(weights))
        sign = -1 if self.amount_minor < 0 else 1
        divided = [divmod(abs(self.amount_minor) * weight, total) for weight in weights]
        left_over = abs(self.amount_minor) - sum(units for units, _ in divided)
        largest_first = sorted(range(len(weights)), key=lambda place: -divided[place][1])
        raised = frozenset(largest_first[:left_over])
        return [Money(sign * (units + (place in raised)), self.currency) for place, (units, _) in enumerate(divided)]

    def _of_same_currency(self, other: "Money") -> int:
        if other.currency != self.currency:
            raise CurrenciesDifferError(f"{self.currency} and {other.currency} have no sum.")
        return other.amount_minor


def decimal_text(amount_minor: int, currency: str) -> str:
    """What Money of it says of itself. Tables of thousands of amounts are written without an object for each."""
    digits = MINOR_UNIT_DIGITS[currency]
    if digits == 0:
        return str(amount_minor)
    whole, fraction = divmod(abs(amount_minor), 10**digits)
    return f"{'-' if amount_minor < 0 else ''}{whole}.{fraction:0{digits}}"


def total(amounts: Iterable[Money], currency: str) -> Money:
    """The sum of amounts of this currency; nothing of it where there are none. Raises CurrenciesDifferError."""
    whole = Money(0, currency)
    for amount in amounts:
        whole += amount
    return whole


def half_up(number: Fraction) -> int:
    """The nearest whole number; of two that are as near, the one farther from zero."""
    whole = (2 * abs(number.numerator) + number.denominator) // (2 * number.denominator)
    return -whole if number < 0 else whole
