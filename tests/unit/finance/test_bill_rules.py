from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.identifiers import new_id
from contracts.money import AmountInvalidError, Money
from contracts.transitions import IllegalMoveError
from services.finance.approvals.rules import FourEyesError
from services.finance.bills.rules import (
    MOVES,
    UNPAID_STATES,
    Age,
    BillDateRefusedError,
    BillDetails,
    BillDueRefusedError,
    BillNotEditableError,
    BillState,
    OpenBills,
    Payment,
    PaymentCurrencyDiffersError,
    PaymentDayRefusedError,
    PaymentExceedsOpenError,
    Progress,
    age_of,
    ageing,
    approved,
    check_bill,
    check_editable,
    is_overdue,
    open_amount,
    paid,
    voided,
)

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)
TODAY = NOW.date()
CREATOR, APPROVER = new_id(), new_id()
BILL = BillDetails(description="Sound", amount=Money(1000, "USD"), billed_on=TODAY, due_on=TODAY + timedelta(days=30))
APPROVED = approved(Progress(), APPROVER, NOW, created_by=CREATOR, changed_by=None)
LEGAL = {
    ("open", "approve", "approved"),
    ("approved", "pay-part", "part_paid"),
    ("part_paid", "pay-part", "part_paid"),
    ("approved", "pay", "paid"),
    ("part_paid", "pay", "paid"),
    ("open", "void", "void"),
    ("approved", "void", "void"),
}


def payment(amount_minor: int, currency: str = "USD", paid_on: date = TODAY) -> Payment:
    return Payment(amount=Money(amount_minor, currency), paid_on=paid_on)


def test_the_moves_are_those_of_the_domain_and_no_others() -> None:
    found = {(source.value, name, move.target.value) for name, move in MOVES.moves.items() for source in move.sources}
    assert found == LEGAL


ATTEMPTS = st.lists(
    st.one_of(st.sampled_from(["approve", "void"]), st.integers(-5, 700)),
    max_size=20,
)


@given(ATTEMPTS, st.sampled_from([APPROVER, CREATOR]))
def test_whatever_is_tried_no_state_is_reached_but_by_a_legal_way_and_payments_add_up(
    attempts: list[str | int], decider: UUID
) -> None:
    progress, payments = Progress(), 0
    for attempt in attempts:
        before = progress
        try:
            if attempt == "approve":
                name, progress = attempt, approved(before, decider, NOW, created_by=CREATOR, changed_by=None)
            elif attempt == "void":
                name, progress = attempt, voided(before, "Because")
            else:
                assert isinstance(attempt, int)
                name, progress = paid(BILL, before, payment(attempt), TODAY)
                payments += attempt
        except IllegalMoveError:
            tried = str(attempt) if isinstance(attempt, str) else "pay"
            assert (before.state.value, tried) not in {(source, move) for source, move, _ in LEGAL}
        except FourEyesError:
            assert decider == CREATOR
        except AmountInvalidError:
            assert isinstance(attempt, int)
            assert attempt <= 0
        except PaymentExceedsOpenError:
            assert isinstance(attempt, int)
            assert attempt > 1000 - payments
        else:
            assert (before.state.value, name, progress.state.value) in LEGAL
        assert progress.paid_minor == payments
        assert (progress.state is BillState.PAID) == (payments == 1000)
        assert (progress.state is BillState.PART_PAID) == (0 < payments < 1000)


def test_neither_who_put_it_down_nor_who_changed_it_approves_it() -> None:
    editor = new_id()
    for involved in (CREATOR, editor):
        with pytest.raises(FourEyesError):
            approved(Progress(), involved, NOW, created_by=CREATOR, changed_by=editor)
    assert (APPROVED.approved_by, APPROVED.approved_at) == (APPROVER, NOW)


def test_a_payment_in_another_currency_or_of_a_day_to_come_is_none() -> None:
    with pytest.raises(PaymentCurrencyDiffersError):
        paid(BILL, APPROVED, payment(1, "EUR"), TODAY)
    paid(BILL, APPROVED, payment(1, paid_on=TODAY + timedelta(days=1)), TODAY)
    with pytest.raises(PaymentDayRefusedError):
        paid(BILL, APPROVED, payment(1, paid_on=TODAY + timedelta(days=2)), TODAY)


def test_of_what_is_void_nothing_is_open() -> None:
    assert open_amount(BILL.amount, APPROVED) == BILL.amount
    assert open_amount(BILL.amount, voided(APPROVED, "Twice")) == Money(0, "USD")


def test_a_bill_is_of_a_day_that_came_and_due_no_earlier() -> None:
    check_bill(replace(BILL, due_on=TODAY), TODAY)
    check_bill(replace(BILL, billed_on=TODAY + timedelta(days=1)), TODAY)
    for wrong, error in (
        ({"billed_on": TODAY + timedelta(days=2)}, BillDateRefusedError),
        ({"due_on": TODAY - timedelta(days=1)}, BillDueRefusedError),
        ({"amount": Money(0, "USD")}, AmountInvalidError),
        ({"amount": Money(-1, "USD")}, AmountInvalidError),
    ):
        with pytest.raises(error):
            check_bill(replace(BILL, **wrong), TODAY)


def test_an_open_bill_is_edited_and_no_other() -> None:
    for state in BillState:
        if state is BillState.OPEN:
            check_editable(state)
        else:
            with pytest.raises(BillNotEditableError):
                check_editable(state)


def test_overdue_is_the_day_after_the_due_one_for_what_is_not_paid() -> None:
    for state in BillState:
        assert is_overdue(state, TODAY - timedelta(days=1), TODAY) == (state in UNPAID_STATES)
        assert not is_overdue(state, TODAY, TODAY)


@pytest.mark.parametrize(
    ("days", "age"),
    [
        (-400, Age.NOT_DUE),
        (0, Age.NOT_DUE),
        (1, Age.DAYS_1_TO_30),
        (30, Age.DAYS_1_TO_30),
        (31, Age.DAYS_31_TO_60),
        (60, Age.DAYS_31_TO_60),
        (61, Age.DAYS_61_TO_90),
        (90, Age.DAYS_61_TO_90),
        (91, Age.DAYS_OVER_90),
        (9000, Age.DAYS_OVER_90),
    ],
)
def test_ages_begin_and_end_where_accountants_cut_them(days: int, age: Age) -> None:
    assert age_of(TODAY - timedelta(days=days), TODAY) is age


LINES = st.lists(
    st.builds(
        OpenBills,
        st.dates(date(2025, 1, 1), date(2027, 1, 1)),
        st.integers(1, 9),
        st.builds(Money, st.integers(1, 10**12), st.sampled_from(["USD", "EUR", "JPY"])),
    ),
    max_size=30,
)


@given(LINES)
def test_ageing_loses_nothing_and_re_adds_to_its_lines(lines: list[OpenBills]) -> None:
    found = ageing(lines, TODAY)
    assert set(found) == {line.open.currency for line in lines}
    for currency, aged in found.items():
        own = [line for line in lines if line.open.currency == currency]
        assert tuple(aged.by_age) == tuple(Age)
        for counted, summed in (
            (aged.total.bills, aged.total.open.amount_minor),
            (
                sum(each.bills for each in aged.by_age.values()),
                sum(each.open.amount_minor for each in aged.by_age.values()),
            ),
        ):
            assert counted == sum(line.bills for line in own)
            assert summed == sum(line.open.amount_minor for line in own)
