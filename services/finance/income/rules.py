"""What may be put down as income."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.money import Money
from contracts.transitions import Move, StateMachine
from services.finance.postings.rules import check_positive, has_come


class IncomeKind(StrEnum):
    TICKETS = "tickets"
    SPONSORSHIP = "sponsorship"
    MERCHANDISE = "merchandise"
    FOOD_AND_DRINK = "food_and_drink"
    GRANT = "grant"
    #: What comes back of an expense or a bill that was paid.
    REFUND = "refund"
    OTHER = "other"


class IncomeState(StrEnum):
    RECORDED = "recorded"
    VOID = "void"


class IncomeUnknownError(DomainError):
    """Also for another company's: the two answers are equal."""

    kind = Kind.NOT_FOUND
    code = "income_unknown"
    title = "There is no such income"

    def __init__(self) -> None:
        super().__init__("This company has no income with this id.")


class IncomeDateRefusedError(DomainError):
    kind = Kind.INVALID
    code = "income_date_refused"
    title = "Nothing can have been received on this day"
    pointer = "/received_on"


class IncomeVoidError(DomainError):
    kind = Kind.CONFLICT
    code = "income_void"
    title = "The income is void and is not changed any more"


MOVES: Final = StateMachine((Move("void", frozenset({IncomeState.RECORDED}), IncomeState.VOID),))


@dataclass(frozen=True, kw_only=True)
class IncomeDetails:
    """What people write down of what was earned."""

    kind: IncomeKind
    description: str
    amount: Money
    received_on: date
    business_unit_id: UUID | None = None
    event_id: UUID | None = None


def check_income(details: IncomeDetails, today: date) -> None:
    """Raises AmountInvalidError or IncomeDateRefusedError."""
    check_positive(details.amount, "Income is more than nothing.")
    if not has_come(details.received_on, today):
        raise IncomeDateRefusedError(f"{details.received_on} has not come yet.")


def check_editable(state: IncomeState) -> None:
    """Raises IncomeVoidError."""
    if state is IncomeState.VOID:
        raise IncomeVoidError
