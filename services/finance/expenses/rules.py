"""What an expense is, which states it passes, and who may take it from one to the next."""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.money import Money, total
from contracts.transitions import Move, StateMachine
from services.finance.approvals.rules import check_four_eyes
from services.finance.postings.rules import check_positive, has_come

#: A show's costs are planned ahead, but an expense is of a day that is near.
DAYS_AHEAD_MAX: Final = 366


class ExpenseState(StrEnum):
    DRAFT = "draft"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"
    SCHEDULED = "scheduled"
    PAID = "paid"
    VOID = "void"


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


class ExpenseScheduleRefusedError(DomainError):
    kind = Kind.INVALID
    code = "expense_schedule_refused"
    title = "An expense cannot be scheduled for this day"
    pointer = "/scheduled_for"


class ExpensePaymentRefusedError(DomainError):
    kind = Kind.INVALID
    code = "expense_payment_refused"
    title = "An expense cannot have been paid on this day"
    pointer = "/paid_on"


class ExpenseNotEditableError(DomainError):
    """What others have seen, decided or paid stays what it was."""

    kind = Kind.CONFLICT
    code = "expense_not_editable"
    title = "The expense is not changed any more"


_STATE = ExpenseState

#: A payment that was scheduled can be put off. What was paid is never void: the money has left, and what comes back of
#: it is income.
MOVES: Final = StateMachine(
    (
        Move("submit", frozenset({_STATE.DRAFT, _STATE.REJECTED}), _STATE.SUBMITTED),
        Move("approve", frozenset({_STATE.SUBMITTED}), _STATE.APPROVED),
        Move("reject", frozenset({_STATE.SUBMITTED}), _STATE.REJECTED),
        Move("schedule", frozenset({_STATE.APPROVED, _STATE.SCHEDULED}), _STATE.SCHEDULED),
        Move("pay", frozenset({_STATE.SCHEDULED}), _STATE.PAID),
        Move("void", frozenset(_STATE) - {_STATE.PAID, _STATE.VOID}, _STATE.VOID),
    )
)
#: What is void was not spent; every other state is summed up unless somebody asks for some of them.
SUMMED_STATES: Final = tuple(state for state in _STATE if state is not _STATE.VOID)
#: What was agreed to is owed, and stays spent when it is paid.
OWED_STATES: Final = (_STATE.APPROVED, _STATE.SCHEDULED)
SPENT_STATES: Final = (*OWED_STATES, _STATE.PAID)
_EDITABLE_STATES: Final = frozenset({_STATE.DRAFT, _STATE.REJECTED})


@dataclass(frozen=True, kw_only=True)
class ExpenseDetails:
    """What people write down of an expense."""

    description: str
    amount: Money
    incurred_on: date
    business_unit_id: UUID | None = None
    event_id: UUID | None = None
    category_id: UUID | None = None
    vendor_id: UUID | None = None
    agency_id: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an expense is, and by whom."""

    state: ExpenseState = _STATE.DRAFT
    submitted_by: UUID | None = None
    submitted_at: datetime | None = None
    decided_by: UUID | None = None
    decided_at: datetime | None = None
    rejection_reason: str | None = None
    scheduled_for: date | None = None
    paid_on: date | None = None
    void_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A move somebody makes, and what they say with it: why they reject or void, the day they schedule or paid."""

    name: str
    actor: UUID
    at: datetime
    reason: str | None = None
    day: date | None = None


@dataclass(frozen=True)
class Total:
    """So many expenses, and what they are together."""

    expenses: int
    amount: Money


class Totals:
    """What expenses are by state, in one currency. Each was converted and rounded before it is added."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self._by_state: dict[ExpenseState, Total] = {}

    def add(self, state: ExpenseState, expenses: int, amount: Money) -> None:
        """Count in expenses that are this amount together. Raises CurrenciesDifferError or AmountInvalidError."""
        so_far = self._by_state.get(state, Total(0, Money(0, self.currency)))
        self._by_state[state] = Total(so_far.expenses + expenses, so_far.amount + amount)

    @property
    def by_state(self) -> list[tuple[ExpenseState, Total]]:
        """The states some expense is in, in their order."""
        return [(state, self._by_state[state]) for state in ExpenseState if state in self._by_state]

    @property
    def whole(self) -> Total:
        """The sum over the states."""
        found = self._by_state.values()
        return Total(sum(each.expenses for each in found), total((each.amount for each in found), self.currency))


def check_expense(details: ExpenseDetails, today: date) -> None:
    """Raises AmountInvalidError or ExpenseDateRefusedError."""
    check_positive(details.amount, "An expense is more than nothing.")
    if details.incurred_on > today + timedelta(days=DAYS_AHEAD_MAX):
        raise ExpenseDateRefusedError(f"{details.incurred_on} is more than {DAYS_AHEAD_MAX} days ahead.")


def check_editable(state: ExpenseState) -> None:
    """Raises ExpenseNotEditableError."""
    if state not in _EDITABLE_STATES:
        raise ExpenseNotEditableError(f"It is {state}; a draft and what was rejected can be changed.", state=str(state))


def moved(progress: Progress, step: Step, created_by: UUID) -> Progress:
    """How far the expense is after a move.

    Raises IllegalMoveError, FourEyesError, ExpenseScheduleRefusedError or ExpensePaymentRefusedError.
    """
    state = MOVES.move(progress.state, step.name)
    match step.name:
        case "submit":
            return Progress(state=state, submitted_by=step.actor, submitted_at=step.at)
        case "approve" | "reject":
            check_four_eyes(step.actor, created_by, progress.submitted_by)
            return replace(
                progress, state=state, decided_by=step.actor, decided_at=step.at, rejection_reason=step.reason
            )
        case "schedule":
            _check_schedule(step)
            return replace(progress, state=state, scheduled_for=step.day)
        case "pay":
            _check_payment(step)
            return replace(progress, state=state, paid_on=step.day)
        case _:
            return replace(progress, state=state, rejection_reason=None, void_reason=step.reason)


def posting_days(details: ExpenseDetails, progress: Progress, step: Step) -> tuple[date, ...]:
    """The days whose months have to be open for a move: that of the payment it plans or tells of, else the expense's.

    So what was spent in a month that is closed by now can still be paid. To plan a payment anew takes it out of the
    month it was planned for, so that one has to be open too.
    """
    if step.day is None:
        return (details.incurred_on,)
    if step.name == "schedule" and progress.scheduled_for is not None:
        return progress.scheduled_for, step.day
    return (step.day,)


def _check_schedule(step: Step) -> None:
    if step.day is not None and step.day > step.at.date() + timedelta(days=DAYS_AHEAD_MAX):
        raise ExpenseScheduleRefusedError(f"{step.day} is more than {DAYS_AHEAD_MAX} days ahead.")


def _check_payment(step: Step) -> None:
    if step.day is not None and not has_come(step.day, step.at.date()):
        raise ExpensePaymentRefusedError(f"{step.day} has not come yet.")
