import pytest

from contracts.transitions import IllegalMoveError
from services.finance.categories.rules import MOVES, CategoryRefusedError, CategoryState, check_takes_expenses


def test_an_active_category_takes_expenses_and_a_retired_or_unknown_one_does_not() -> None:
    check_takes_expenses(CategoryState.ACTIVE)
    for state in (CategoryState.RETIRED, None):
        with pytest.raises(CategoryRefusedError):
            check_takes_expenses(state)


def test_a_category_is_retired_once_and_for_good() -> None:
    assert MOVES.move(CategoryState.ACTIVE, "retire") is CategoryState.RETIRED
    assert MOVES.allowed(CategoryState.RETIRED) == ()
    with pytest.raises(IllegalMoveError):
        MOVES.move(CategoryState.RETIRED, "retire")
