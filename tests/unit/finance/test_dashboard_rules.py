from datetime import date
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.money import Money, total
from services.finance.bills.rules import Age
from services.finance.dashboards.rules import (
    LINES_MAX,
    MONTHS_MAX,
    Line,
    Months,
    Owed,
    PeriodRefusedError,
    Spent,
    by_currency,
    months,
)

TODAY = date(2026, 5, 21)
PERIOD = Months(date(2025, 11, 1), date(2026, 2, 1))
PARTIES = st.none() | st.integers(1, 80).map(lambda number: UUID(int=number))
CURRENCIES = st.sampled_from(["USD", "JPY", "BHD"])
SPENT = st.builds(Spent, PARTIES, st.sampled_from(PERIOD.each()), CURRENCIES, st.integers(1, 10**9))
OWED = st.builds(Owed, PARTIES, st.sampled_from(Age), CURRENCIES, st.integers(1, 10**9))


def columns(line: Line) -> list[Money]:
    return [*line.spent, *line.owed, line.spent_total, line.owed_total]


@given(st.lists(SPENT, max_size=200), st.lists(OWED, max_size=100))
def test_every_sum_is_that_of_its_lines_and_nothing_is_lost_on_the_way(spent: list[Spent], owed: list[Owed]) -> None:
    found = by_currency(spent, owed, PERIOD)
    assert [each.currency for each in found] == sorted(
        {item.currency for item in spent} | {item.currency for item in owed}
    )
    for each in found:
        for column, parts in zip(columns(each.sum), zip(*map(columns, each.lines), strict=True), strict=True):
            assert column == total(parts, each.currency)
        for line in [each.sum, *each.lines]:
            assert line.spent_total == total(line.spent, each.currency)
            assert line.owed_total == total(line.owed, each.currency)
        own = [Money(item.amount_minor, item.currency) for item in spent if item.currency == each.currency]
        assert each.sum.spent_total == total(own, each.currency)
        open_of_it = [Money(item.amount_minor, item.currency) for item in owed if item.currency == each.currency]
        assert each.sum.owed_total == total(open_of_it, each.currency)
        assert len(each.lines) <= LINES_MAX + 1


def test_those_with_the_most_come_first_and_the_rest_is_one_line() -> None:
    spent = [Spent(UUID(int=number), PERIOD.first, "USD", number) for number in range(1, LINES_MAX + 4)]
    (found,) = by_currency(spent, [], PERIOD)
    assert [line.party_id for line in found.lines[:2]] == [UUID(int=LINES_MAX + 3), UUID(int=LINES_MAX + 2)]
    rest = found.lines[-1]
    assert (rest.is_rest, rest.party_id, rest.spent_total) == (True, None, Money(1 + 2 + 3, "USD"))


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
