"""What may be put down as an expense."""

from datetime import date, timedelta
from typing import Final

from contracts.errors import DomainError, Kind
from contracts.money import AmountInvalidError, Money

#: A show's costs are planned ahead, but an expense is of a day that is near.
DAYS_AHEAD_MAX: Final = 366


class ExpenseUnknownError(DomainError):
    """Also for another company's expense: the two answers are equal."""

    kind = Kind.NOT_FOUND
    code = "expense_unknown"
    title = "There is no such expense"

    def __init__(self) -> None:
        super().__init__("This company has no expense with this id.")


class ExpenseDateRefusedError(DomainError):
    kind = Kind.INVALID
    code = "expense_date_refused"
    title = "This date cannot be an expense's"
    pointer = "/incurred_on"


def check_expense(amount: Money, incurred_on: date, today: date) -> None:
    """Raises AmountInvalidError or ExpenseDateRefusedError."""
    if amount.amount_minor <= 0:
        raise AmountInvalidError("An expense is more than nothing.", amount=str(amount), currency=amount.currency)
    if incurred_on > today + timedelta(days=DAYS_AHEAD_MAX):
        raise ExpenseDateRefusedError(f"{incurred_on} is more than {DAYS_AHEAD_MAX} days ahead.")
