"""Which categories there are for an expense."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from contracts.errors import DomainError, Kind
from contracts.transitions import Move, StateMachine


class CategoryState(StrEnum):
    ACTIVE = "active"
    RETIRED = "retired"


class CategoryUnknownError(DomainError):
    """Also for another company's category: the two answers are equal."""

    kind = Kind.NOT_FOUND
    code = "category_unknown"
    title = "There is no such category"

    def __init__(self) -> None:
        super().__init__("This company has no category with this id.")


class CategoryNameTakenError(DomainError):
    """Of what is retired the name is free again."""

    kind = Kind.CONFLICT
    code = "category_name_taken"
    title = "Another category has this name"


class CategoryRefusedError(DomainError):
    """It is not one of the company's, or it is retired."""

    kind = Kind.INVALID
    code = "category_refused"
    title = "This category takes no expense"
    pointer = "/category_id"


#: What is retired stays what older expenses were of.
MOVES: Final = StateMachine((Move("retire", frozenset({CategoryState.ACTIVE}), CategoryState.RETIRED),))

#: The list is the whole company's, so it is not for those to change who are bound to a part of it.
SCOPE: Final[Mapping[str, None]] = {"business_unit": None, "event": None}


def check_takes_expenses(state: CategoryState | None) -> None:
    """Raises CategoryRefusedError; None stands for a category the company does not have."""
    if state is None:
        raise CategoryRefusedError("This company has no category with this id.")
    if state is CategoryState.RETIRED:
        raise CategoryRefusedError("It is retired.")
