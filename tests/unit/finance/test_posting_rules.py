from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from contracts.identifiers import new_id
from contracts.money import AmountInvalidError, Money
from services.finance.income.rules import IncomeDetails, IncomeKind
from services.finance.postings.rules import check_positive, edited, has_come

TODAY = date(2026, 5, 21)
TICKETS = IncomeDetails(
    kind=IncomeKind.TICKETS,
    description="Presale",
    amount=Money(150, "USD"),
    received_on=TODAY,
    event_id=new_id(),
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, TICKETS),
        ({"amount": "2"}, replace(TICKETS, amount=Money(200, "USD"))),
        ({"currency": "EUR"}, replace(TICKETS, amount=Money(150, "EUR"))),
        ({"amount": "2", "currency": "JPY"}, replace(TICKETS, amount=Money(2, "JPY"))),
        ({"event_id": None, "description": "Door"}, replace(TICKETS, event_id=None, description="Door")),
    ],
)
def test_what_is_not_changed_stays(changes: dict[str, Any], expected: IncomeDetails) -> None:
    assert edited(TICKETS, changes) == expected


def test_an_amount_that_is_none_of_the_new_currency_is_refused() -> None:
    with pytest.raises(AmountInvalidError):
        edited(TICKETS, {"currency": "JPY"})


@pytest.mark.parametrize("minor", [0, -1])
def test_nothing_and_less_are_no_amount(minor: int) -> None:
    check_positive(Money(1, "USD"), "More than nothing.")
    with pytest.raises(AmountInvalidError):
        check_positive(Money(minor, "USD"), "More than nothing.")


def test_tomorrow_has_come_somewhere() -> None:
    days = {ahead: has_come(TODAY + timedelta(days=ahead), TODAY) for ahead in (-1, 0, 1, 2)}
    assert days == {-1: True, 0: True, 1: True, 2: False}
