from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.finance.periods.rules import MOVES, PeriodState, month_of, month_text


@given(st.dates(max_value=date(9999, 12, 30)))
def test_a_day_is_in_the_month_it_is_written_with(day: date) -> None:
    month = month_of(day)
    assert month.day == 1
    assert day.isoformat().startswith(f"{month_text(month)}-")
    following = day + timedelta(days=1)
    assert (month_of(following) == month) == (following.day != 1)


def test_a_month_is_closed_and_reopened_and_nothing_else() -> None:
    assert {state: MOVES.allowed(state) for state in PeriodState} == {
        PeriodState.OPEN: ("close",),
        PeriodState.CLOSED: ("reopen",),
    }
