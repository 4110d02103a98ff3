from dataclasses import replace
from datetime import date, timedelta

import pytest

from contracts.money import AmountInvalidError, Money
from services.finance.income.rules import (
    MOVES,
    IncomeDateRefusedError,
    IncomeDetails,
    IncomeKind,
    IncomeState,
    IncomeVoidError,
    check_editable,
    check_income,
)

TODAY = date(2026, 5, 21)
SALE = IncomeDetails(kind=IncomeKind.TICKETS, description="Door", amount=Money(1, "USD"), received_on=TODAY)


def test_what_was_received_by_now_is_income_and_what_will_be_is_none() -> None:
    for day in (date(1990, 1, 1), TODAY, TODAY + timedelta(days=1)):
        check_income(replace(SALE, received_on=day), TODAY)
    with pytest.raises(IncomeDateRefusedError):
        check_income(replace(SALE, received_on=TODAY + timedelta(days=2)), TODAY)


@pytest.mark.parametrize("amount_minor", [0, -1])
def test_nothing_and_less_is_none(amount_minor: int) -> None:
    with pytest.raises(AmountInvalidError):
        check_income(replace(SALE, amount=Money(amount_minor, "USD")), TODAY)


def test_what_is_void_stays_as_it_is() -> None:
    check_editable(IncomeState.RECORDED)
    with pytest.raises(IncomeVoidError):
        check_editable(IncomeState.VOID)
    assert {state: MOVES.allowed(state) for state in IncomeState} == {
        IncomeState.RECORDED: ("void",),
        IncomeState.VOID: (),
    }
