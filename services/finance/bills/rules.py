"""What a bill is, what is open of it, and for how long."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.money import Money, total
from contracts.transitions import Move, StateMachine
from services.finance.approvals.rules import check_four_eyes
from services.finance.postings.rules import check_positive, has_come


class BillState(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    PART_PAID = "part_paid"
    PAID = "paid"
    VOID = "void"


class BillUnknownError(DomainError):
    """Also for another company's bill: the two answers are equal."""

    kind = Kind.NOT_FOUND
    code = "bill_unknown"
    title = "There is no such bill"

    def __init__(self) -> None:
        super().__init__("This company has no bill with this id.")


class BillDateRefusedError(DomainError):
    kind = Kind.INVALID
    code = "bill_date_refused"
    title = "This date cannot be a bill's"
    pointer = "/billed_on"


class BillDueRefusedError(DomainError):
    kind = Kind.INVALID
    code = "bill_due_refused"
    title = "A bill cannot be due on this day"
    pointer = "/due_on"


class BillNotEditableError(DomainError):
    """What was approved stays what was approved."""

    kind = Kind.CONFLICT
    code = "bill_not_editable"
    title = "The bill is not changed any more"


class PaymentCurrencyDiffersError(DomainError):
    kind = Kind.INVALID
    code = "payment_currency_differs"
    title = "A bill is paid in its own currency"
    pointer = "/currency"


class PaymentDayRefusedError(DomainError):
    kind = Kind.INVALID
    code = "payment_day_refused"
    title = "Nothing can have been paid on this day"
    pointer = "/paid_on"


class PaymentExceedsOpenError(DomainError):
    kind = Kind.CONFLICT
    code = "payment_exceeds_open"
    title = "This is more than what is open of the bill"


_STATE = BillState
_PAYABLE: Final = frozenset({_STATE.APPROVED, _STATE.PART_PAID})

#: The two payments are made by adding one, and which it is follows from its amount. Of what some was paid nothing is
#: void: the money has left.
MOVES: Final = StateMachine(
    (
        Move("approve", frozenset({_STATE.OPEN}), _STATE.APPROVED),
        Move("pay-part", _PAYABLE, _STATE.PART_PAID),
        Move("pay", _PAYABLE, _STATE.PAID),
        Move("void", frozenset({_STATE.OPEN, _STATE.APPROVED}), _STATE.VOID),
    )
)
#: In which something of a bill is still to be paid.
UNPAID_STATES: Final = frozenset({_STATE.OPEN, _STATE.APPROVED, _STATE.PART_PAID})


@dataclass(frozen=True, kw_only=True)
class BillDetails:
    """What people write down of a bill; `reference` is the number its sender gave it."""

    description: str
    amount: Money
    billed_on: date
    due_on: date
    reference: str | None = None
    business_unit_id: UUID | None = None
    event_id: UUID | None = None
    vendor_id: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a bill is, and by whom."""

    state: BillState = _STATE.OPEN
    paid_minor: int = 0
    approved_by: UUID | None = None
    approved_at: datetime | None = None
    void_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Payment:
    amount: Money
    paid_on: date


def check_bill(details: BillDetails, today: date) -> None:
    """Raises AmountInvalidError, BillDateRefusedError or BillDueRefusedError."""
    check_positive(details.amount, "A bill is over more than nothing.")
    if not has_come(details.billed_on, today):
        raise BillDateRefusedError(f"{details.billed_on} has not come yet.")
    if details.due_on < details.billed_on:
        raise BillDueRefusedError(f"{details.due_on} is before the bill's own date, {details.billed_on}.")


def check_editable(state: BillState) -> None:
    """Raises BillNotEditableError."""
    if state is not _STATE.OPEN:
        raise BillNotEditableError(f"It is {state}; an open one can be changed.", state=str(state))


def approved(
    progress: Progress, approver: UUID, at: datetime, *, created_by: UUID, changed_by: UUID | None
) -> Progress:
    """Raises IllegalMoveError or FourEyesError."""
    state = MOVES.move(progress.state, "approve")
    check_four_eyes(approver, created_by, changed_by)
    return replace(progress, state=state, approved_by=approver, approved_at=at)


def voided(progress: Progress, reason: str) -> Progress:
    """Raises IllegalMoveError."""
    return replace(progress, state=MOVES.move(progress.state, "void"), void_reason=reason)


def paid(details: BillDetails, progress: Progress, payment: Payment, today: date) -> tuple[str, Progress]:
    """The move a payment is, and how far the bill is after it.

    Raises IllegalMoveError, PaymentCurrencyDiffersError, AmountInvalidError, PaymentDayRefusedError or
    PaymentExceedsOpenError.
    """
    MOVES.move(progress.state, "pay")
    if payment.amount.currency != details.amount.currency:
        raise PaymentCurrencyDiffersError(f"The bill is in {details.amount.currency}.")
    check_positive(payment.amount, "A payment is of more than nothing.")
    if not has_come(payment.paid_on, today):
        raise PaymentDayRefusedError(f"{payment.paid_on} has not come yet.")
    left = open_amount(details.amount, progress) - payment.amount
    if left.amount_minor < 0:
        open_now = open_amount(details.amount, progress)
        raise PaymentExceedsOpenError(f"{open_now} {open_now.currency} is open.", open=str(open_now))
    name = "pay" if left.amount_minor == 0 else "pay-part"
    paid_minor = progress.paid_minor + payment.amount.amount_minor
    return name, replace(progress, state=MOVES.move(progress.state, name), paid_minor=paid_minor)


def open_amount(amount: Money, progress: Progress) -> Money:
    """What is still to be paid of a bill over an amount; of a void one nothing."""
    left = 0 if progress.state is _STATE.VOID else amount.amount_minor - progress.paid_minor
    return Money(left, amount.currency)


def is_overdue(state: BillState, due_on: date, today: date) -> bool:
    """Whether something of the bill should have been paid by now. On the day it is due there still is time."""
    return state in UNPAID_STATES and due_on < today


class Age(StrEnum):
    """By how many days what is open is overdue."""

    NOT_DUE = "not_due"
    DAYS_1_TO_30 = "days_1_to_30"
    DAYS_31_TO_60 = "days_31_to_60"
    DAYS_61_TO_90 = "days_61_to_90"
    DAYS_OVER_90 = "days_over_90"


#: The most days overdue an age stands for, in their order.
AGE_DAYS_MAX: Final[Mapping[Age, int]] = {
    Age.NOT_DUE: 0,
    Age.DAYS_1_TO_30: 30,
    Age.DAYS_31_TO_60: 60,
    Age.DAYS_61_TO_90: 90,
}


@dataclass(frozen=True)
class OpenBills:
    """How many bills are due on a day, and what is open of them together."""

    due_on: date
    bills: int
    open: Money


@dataclass(frozen=True)
class Aged:
    """How many bills are of an age, and what is open of them together."""

    bills: int
    open: Money


@dataclass(frozen=True)
class Ageing:
    """What is open in one currency: every age, and their sum."""

    by_age: Mapping[Age, Aged]
    total: Aged


def age_of(due_on: date, today: date) -> Age:
    """How old a bill is that was to be paid by this day."""
    days = (today - due_on).days
    return next((age for age, most in AGE_DAYS_MAX.items() if days <= most), Age.DAYS_OVER_90)


def ageing(lines: Iterable[OpenBills], today: date) -> dict[str, Ageing]:
    """What is open by currency and age, the currencies in the order of their codes."""
    found: dict[str, dict[Age, list[OpenBills]]] = defaultdict(lambda: {age: [] for age in Age})
    for line in lines:
        found[line.open.currency][age_of(line.due_on, today)].append(line)
    by_currency: dict[str, Ageing] = {}
    for currency, own in sorted(found.items()):
        by_age = {age: _sum(of_age, currency) for age, of_age in own.items()}
        by_currency[currency] = Ageing(by_age, _sum(by_age.values(), currency))
    return by_currency


def _sum(lines: Iterable[OpenBills | Aged], currency: str) -> Aged:
    found = list(lines)
    return Aged(sum(line.bills for line in found), total((line.open for line in found), currency))
