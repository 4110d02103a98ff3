"""Money: minor units of an ISO 4217 currency, never a float."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
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
AMOUNT_MINOR_MAX: Final = 2**53 - 1


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


@dataclass(frozen=True)
class Money:
    """An amount in the minor unit: Money(19900, "USD") is 199.00 USD."""

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        """Raises CurrencyUnknownError or AmountInvalidError."""
        if self.currency not in MINOR_UNIT_DIGITS:
            raise CurrencyUnknownError(f"{self.currency!r} is not an ISO 4217 currency.", currency=self.currency)
        if abs(self.amount_minor) > AMOUNT_MINOR_MAX:
            raise AmountInvalidError(f"At most {AMOUNT_MINOR_MAX} minor units.", currency=self.currency)

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
            return cls(int(Decimal(amount).scaleb(digits)), currency)
        except InvalidOperation as error:
            raise AmountInvalidError(f"At most {AMOUNT_MINOR_MAX} minor units.", **facts) from error

    def __str__(self) -> str:
        """The decimal text, with all decimals of the currency: 199.00"""
        return f"{Decimal(self.amount_minor).scaleb(-MINOR_UNIT_DIGITS[self.currency]):f}"
