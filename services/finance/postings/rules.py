"""An amount of a day: what holds for it whatever it was put down as."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Protocol, TypeVar

from contracts.money import AmountInvalidError, Money


class _Details(Protocol):
    @property
    def amount(self) -> Money: ...


Details = TypeVar("Details", bound=_Details)


def check_positive(amount: Money, rule: str) -> None:
    """Raises AmountInvalidError, with the rule in words."""
    if amount.amount_minor <= 0:
        raise AmountInvalidError(rule, amount=str(amount), currency=amount.currency)


def has_come(day: date, today: date) -> bool:
    """Whether the day has begun anywhere; `today` is the one in UTC, and somewhere it is tomorrow already."""
    return day <= today + timedelta(days=1)


def edited(details: Details, changes: Mapping[str, Any]) -> Details:
    """What is written down with these changes: fields of it, the amount as two texts of which either may be missing.

    Raises CurrencyUnknownError or AmountInvalidError.
    """
    amount = details.amount.edited(changes.get("amount"), changes.get("currency"))
    others = {name: value for name, value in changes.items() if name not in {"amount", "currency"}}
    return replace(details, amount=amount, **others)  # type: ignore[type-var]  # it is a dataclass
