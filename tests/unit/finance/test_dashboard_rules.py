from datetime import date, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.finance.bills.rules import Age, age_of
from services.finance.dashboards.rules import (
    MONTHS_MAX,
    Line,
    Months,
    PeriodRefusedError,
    age_spans,
    by_currency,
    months,
)

TODAY = date(2026, 5, 21)
PERIOD = Months(date(2025, 11, 1), date(2026, 2, 1))
PARTIES = st.none() | st.integers(1, 80).map(lambda number: UUID(int=number))
AMOUNTS = st.integers(0, 10**9)
LINES = st.builds(
    Line,
    st.sampled_from(["USD", "JPY", "BHD"]),
    PARTIES,
    st.booleans(),
    st.lists(AMOUNTS, min_size=len(PERIOD.each()), max_size=len(PERIOD.each())),
    st.lists(AMOUNTS, min_size=len(Age), max_size=len(Age)),
)


def columns(line: Line) -> list[int]:
    return [*line.spent, *line.owed, line.spent_total, line.owed_total]


@given(st.lists(LINES, max_size=120))
def test_every_sum_is_that_of_its_lines_and_nothing_is_lost_on_the_way(lines: list[Line]) -> None:
    found = by_currency(lines)
    assert [each.currency for each in found] == sorted({line.currency for line in lines})
    for each in found:
        own = [line for line in lines if line.currency == each.currency]
        assert each.lines == own
        assert columns(each.sum) == [sum(parts) for parts in zip(*map(columns, each.lines), strict=True)]
        assert each.sum.spent_total == sum(sum(line.spent) for line in own)
        assert each.sum.owed_total == sum(sum(line.owed) for line in own)


@given(st.integers(-400, 400).map(lambda days: TODAY + timedelta(days=days)))
def test_each_day_is_of_the_one_age_a_bill_due_on_it_would_have(day: date) -> None:
    found = [
        age
        for age, (first, end) in zip(Age, age_spans(TODAY), strict=True)
        if (first is None or first <= day) and (end is None or day < end)
    ]
    assert found == [age_of(day, TODAY)]


@pytest.mark.parametrize(
    ("first", "before", "expected"),
    [
        (None, None, (date(2025, 6, 1), date(2026, 6, 1))),
        (date(2026, 1, 31), None, (date(2026, 1, 1), date(2026, 6, 1))),
        (date(2026, 1, 1), date(2026, 2, 1), (date(2026, 1, 1), date(2026, 2, 1))),
        (date(2026, 1, 1), date(2026, 2, 2), (date(2026, 1, 1), date(2026, 3, 1))),
        (None, date(2026, 1, 1), (date(2025, 1, 1), date(2026, 1, 1))),
    ],
)
def test_months_are_whole(first: date | None, before: date | None, expected: tuple[date, date]) -> None:
    period = months(first, before, TODAY)
    assert (period.first, period.end) == expected
    assert period.each()[0] == expected[0]
    assert period.each()[-1] < expected[1]
    assert [day for span in period.spans() for day in span] == sorted([*period.each(), *period.each()[1:], expected[1]])


@pytest.mark.parametrize(
    ("first", "before"),
    [
        (date(2026, 6, 1), None),
        (date(2026, 1, 1), date(2026, 1, 1)),
        (date(2023, 5, 31), None),
        (date.min, None),
        (None, date.min),
        (date.min, date(1, 2, 1)),
        (date.max, date.max),
        (None, date.max),
    ],
)
def test_months_nobody_can_be_shown_are_refused(first: date | None, before: date | None) -> None:
    with pytest.raises(PeriodRefusedError):
        months(first, before, TODAY)


def test_the_longest_period_is_shown() -> None:
    assert len(months(date(2023, 6, 1), None, TODAY).each()) == MONTHS_MAX
