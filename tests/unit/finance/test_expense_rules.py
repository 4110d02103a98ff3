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
from services.finance.expenses.rules import (
    DAYS_AHEAD_MAX,
    MOVES,
    ExpenseDateRefusedError,
    ExpenseDetails,
    ExpenseNotEditableError,
    ExpensePaymentRefusedError,
    ExpenseScheduleRefusedError,
    ExpenseState,
    Progress,
    Step,
    check_editable,
    check_expense,
    moved,
    posting_days,
)

NOW = datetime(2026, 5, 21, 23, tzinfo=UTC)
TODAY = NOW.date()
STAGE = ExpenseDetails(description="Stage", amount=Money(120050, "USD"), incurred_on=TODAY)
CREATOR, SUBMITTER, DECIDER = PERSONS = new_id(), new_id(), new_id()
BEFORE_PAYMENT = ("draft", "submitted", "approved", "rejected", "scheduled")
LEGAL = {
    ("draft", "submit", "submitted"),
    ("rejected", "submit", "submitted"),
    ("submitted", "approve", "approved"),
    ("submitted", "reject", "rejected"),
    ("approved", "schedule", "scheduled"),
    ("scheduled", "schedule", "scheduled"),
    ("scheduled", "pay", "paid"),
    *((state, "void", "void") for state in BEFORE_PAYMENT),
}


def step(name: str, actor: UUID = DECIDER, day: date = TODAY) -> Step:
    """A move as its route makes it."""
    reason = "Because" if name in {"reject", "void"} else None
    return Step(name=name, actor=actor, at=NOW, reason=reason, day=day if name in {"schedule", "pay"} else None)


def test_what_was_spent_today_or_will_be_within_a_year_is_an_expense() -> None:
    for incurred_on in (date(1990, 1, 1), TODAY, TODAY + timedelta(days=DAYS_AHEAD_MAX)):
        check_expense(replace(STAGE, incurred_on=incurred_on), TODAY)


@pytest.mark.parametrize("amount_minor", [0, -1])
def test_nothing_and_less_is_none(amount_minor: int) -> None:
    with pytest.raises(AmountInvalidError):
        check_expense(replace(STAGE, amount=Money(amount_minor, "USD")), TODAY)


def test_a_day_too_far_ahead_is_none() -> None:
    far = TODAY + timedelta(days=DAYS_AHEAD_MAX + 1)
    with pytest.raises(ExpenseDateRefusedError):
        check_expense(replace(STAGE, incurred_on=far), TODAY)
    approved = Progress(state=ExpenseState.APPROVED)
    with pytest.raises(ExpenseScheduleRefusedError):
        moved(approved, step("schedule", day=far), CREATOR)
    assert moved(approved, step("schedule", day=far - timedelta(days=1)), CREATOR).state is ExpenseState.SCHEDULED


def test_nothing_is_paid_in_the_future_but_where_it_is_tomorrow_already() -> None:
    scheduled = Progress(state=ExpenseState.SCHEDULED)
    assert moved(scheduled, step("pay", day=TODAY + timedelta(days=1)), CREATOR).state is ExpenseState.PAID
    with pytest.raises(ExpensePaymentRefusedError):
        moved(scheduled, step("pay", day=TODAY + timedelta(days=2)), CREATOR)


def test_the_moves_are_those_of_the_domain_and_no_others() -> None:
    found = {(source.value, name, move.target.value) for name, move in MOVES.moves.items() for source in move.sources}
    assert found == LEGAL


ATTEMPTS = st.lists(st.tuples(st.sampled_from(sorted(MOVES.moves)), st.sampled_from(PERSONS)), max_size=30)


@given(ATTEMPTS)
def test_whoever_tries_whatever_in_whatever_order_no_state_is_reached_but_by_a_legal_way(
    attempts: list[tuple[str, UUID]],
) -> None:
    progress = Progress()
    for name, actor in attempts:
        before = progress
        try:
            progress = moved(before, step(name, actor), CREATOR)
        except IllegalMoveError:
            assert (before.state.value, name) not in {(source, move) for source, move, _ in LEGAL}
        except FourEyesError:
            assert name in {"approve", "reject"}
            assert actor in {CREATOR, before.submitted_by}
        else:
            assert (before.state.value, name, progress.state.value) in LEGAL
        decided = progress.state in {"approved", "rejected", "scheduled", "paid"}
        assert not decided or progress.decided_by not in {None, CREATOR, progress.submitted_by}
        assert (progress.state == "paid") == (progress.paid_on is not None)
        assert (progress.state == "rejected") == (progress.rejection_reason is not None)
        assert (progress.state == "void") == (progress.void_reason is not None)


@pytest.mark.parametrize("decision", ["approve", "reject"])
@pytest.mark.parametrize("decider", [CREATOR, SUBMITTER])
def test_neither_who_created_nor_who_submitted_it_decides(decision: str, decider: UUID) -> None:
    submitted = moved(Progress(), step("submit", SUBMITTER), CREATOR)
    with pytest.raises(FourEyesError):
        moved(submitted, step(decision, decider), CREATOR)
    assert moved(submitted, step(decision, DECIDER), CREATOR).decided_by == DECIDER


def test_what_is_submitted_again_is_undecided() -> None:
    rejected = moved(moved(Progress(), step("submit", SUBMITTER), CREATOR), step("reject"), CREATOR)
    again = moved(rejected, step("submit", CREATOR), CREATOR)
    assert again == Progress(state=ExpenseState.SUBMITTED, submitted_by=CREATOR, submitted_at=NOW)


def test_a_draft_and_what_was_rejected_are_edited_and_nothing_else() -> None:
    for state in ExpenseState:
        if state in {"draft", "rejected"}:
            check_editable(state)
        else:
            with pytest.raises(ExpenseNotEditableError):
                check_editable(state)


def test_a_payment_is_posted_on_its_own_day_and_every_other_move_on_the_expenses() -> None:
    other = TODAY + timedelta(days=40)
    days = {name: posting_days(STAGE, Progress(), step(name, day=other)) for name in MOVES.moves}
    assert {name for name, found in days.items() if found == (other,)} == {"schedule", "pay"}
    assert {found for name, found in days.items() if name not in {"schedule", "pay"}} == {(TODAY,)}


def test_a_payment_that_is_planned_anew_is_of_both_its_days_and_one_that_is_made_of_its_own() -> None:
    planned, other = TODAY + timedelta(days=10), TODAY + timedelta(days=40)
    progress = Progress(state=ExpenseState.SCHEDULED, scheduled_for=planned)
    assert posting_days(STAGE, progress, step("schedule", day=other)) == (planned, other)
    assert posting_days(STAGE, progress, step("pay", day=other)) == (other,)
