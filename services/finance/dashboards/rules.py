"""How expenses are added up by whom they go to; what is owed of them is as old as a bill would be."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from contracts.errors import DomainError, Kind
from services.finance.bills.rules import AGE_DAYS_MAX
from services.finance.periods.rules import month_of

MONTHS_MAX: Final = 36
MONTHS_DEFAULT: Final = 12
#: Per currency, those with the most. The others are one line, so that totals still are the sums of their lines.
LINES_MAX: Final = 50
_MONTHS_OF_A_YEAR: Final = 12
#: From the first day up to, and without, the second; None is without an end.
Span = tuple[date | None, date | None]
#: Round them there are months enough to reckon with.
_DAY_MIN: Final = date(1900, 1, 1)
_DAY_MAX: Final = date(9000, 1, 1)


class PeriodRefusedError(DomainError):
    kind = Kind.INVALID
    code = "dashboard_period_refused"
    title = "A dashboard cannot show these months"
    pointer = "?before"


@dataclass(frozen=True)
class Months:
    """Whole months: from the first day of one up to, and without, the first day of another."""

    first: date
    end: date

    def each(self) -> list[date]:
        """The first day of each."""
        found = [self.first]
        while (following := month_after(found[-1])) < self.end:
            found.append(following)
        return found

    def spans(self) -> list[Span]:
        """The days of each."""
        return [(month, month_after(month)) for month in self.each()]


class Line(NamedTuple):
    """What one party was spent with and is owed in one currency, in minor units: an amount for each month and one for
    each age, in order. The party is None where none is named, where it `is_rest`, of all that have no line, and where
    it is the sum of several.
    """

    currency: str
    party_id: UUID | None
    is_rest: bool
    spent: Sequence[int]
    owed: Sequence[int]

    @property
    def spent_total(self) -> int:
        return sum(self.spent)

    @property
    def owed_total(self) -> int:
        return sum(self.owed)


@dataclass(frozen=True)
class OfCurrency:
    """All of one currency; `sum` is of `lines`, column by column."""

    currency: str
    sum: Line
    lines: Sequence[Line]


def month_after(day: date) -> date:
    return month_of(month_of(day) + timedelta(days=31))


def months(first: date | None, before: date | None, today: date) -> Months:
    """The months that are asked for: of the first day up to, and without, the second; without them the last twelve.

    Raises PeriodRefusedError.
    """
    for day in (first, before):
        if day is not None and not _DAY_MIN <= day <= _DAY_MAX:
            raise PeriodRefusedError(f"Days are from {_DAY_MIN} to {_DAY_MAX}.")
    end = month_after(today if before is None else before - timedelta(days=1))
    begin = _back(end, MONTHS_DEFAULT) if first is None else month_of(first)
    if not _back(end, MONTHS_MAX) <= begin < end:
        raise PeriodRefusedError(f"It shows 1 to {MONTHS_MAX} months.")
    return Months(begin, end)


def age_spans(today: date) -> list[Span]:
    """The days on which what is of each age today was to be paid."""
    firsts = [today - timedelta(days=most) for most in AGE_DAYS_MAX.values()]
    return list(zip([*firsts, None], [None, *firsts], strict=True))


def by_currency(lines: Iterable[Line]) -> list[OfCurrency]:
    """Lines as tables: a currency each, in the order of their codes, and in it its lines as they come and their sum."""
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        found[line.currency].append(line)
    return [OfCurrency(currency, _sum(currency, own), own) for currency, own in sorted(found.items())]


def _sum(currency: str, lines: Sequence[Line]) -> Line:
    spent = [sum(column) for column in zip(*(each.spent for each in lines), strict=True)]
    owed = [sum(column) for column in zip(*(each.owed for each in lines), strict=True)]
    return Line(currency, None, False, spent, owed)


def _back(month: date, count: int) -> date:
    number = month.year * _MONTHS_OF_A_YEAR + month.month - 1 - count
    year, month_index = divmod(number, _MONTHS_OF_A_YEAR)
    return date(year, month_index + 1, 1)
