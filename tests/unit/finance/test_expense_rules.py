from datetime import date, timedelta

import pytest

from contracts.money import AmountInvalidError, Money
from services.finance.expenses.rules import DAYS_AHEAD_MAX, ExpenseDateRefusedError, check_expense

TODAY = date(2026, 5, 21)


def test_what_was_spent_today_or_will_be_within_a_year_is_an_expense() -> None:
    for incurred_on in (date(1990, 1, 1), TODAY, TODAY + timedelta(days=DAYS_AHEAD_MAX)):
        check_expense(Money(1, "USD"), incurred_on, TODAY)


@pytest.mark.parametrize("amount_minor", [0, -1])
def test_nothing_and_less_is_none(amount_minor: int) -> None:
    with pytest.raises(AmountInvalidError):
        check_expense(Money(amount_minor, "USD"), TODAY, TODAY)


def test_a_day_too_far_ahead_is_none() -> None:
    with pytest.raises(ExpenseDateRefusedError):
        check_expense(Money(1, "USD"), TODAY + timedelta(days=DAYS_AHEAD_MAX + 1), TODAY)
