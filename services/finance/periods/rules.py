"""What a closed month refuses."""

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Final

from contracts.errors import DomainError, Kind
from contracts.transitions import Move, StateMachine


class PeriodState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class PeriodUnknownError(DomainError):
    """Also for another company's: the two answers are equal."""

    kind = Kind.NOT_FOUND
    code = "period_unknown"
    title = "There is no such period"

    def __init__(self) -> None:
        super().__init__("This company has no period with this id.")


class PeriodKnownError(DomainError):
    """A month that was closed before is closed again as what it is: a period with a version."""

    kind = Kind.CONFLICT
    code = "period_known"
    title = "This month has been closed before"


class PeriodClosedError(DomainError):
    kind = Kind.CONFLICT
    code = "period_closed"
    title = "The books of this month are closed"


MOVES: Final = StateMachine(
    (
        Move("close", frozenset({PeriodState.OPEN}), PeriodState.CLOSED),
        Move("reopen", frozenset({PeriodState.CLOSED}), PeriodState.OPEN),
    )
)

#: A month is closed for the whole company, so it is not for those to close who are bound to a part of it.
SCOPE: Final[Mapping[str, None]] = {"business_unit": None, "event": None}


def month_of(day: date) -> date:
    """The first day of the month, which stands for it."""
    return day.replace(day=1)


def month_text(month: date) -> str:
    """As it is written: 2026-05"""
    return month.isoformat()[: len("2026-05")]
