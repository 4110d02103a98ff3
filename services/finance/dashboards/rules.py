"""How expenses are added up by whom they go to; what is owed of them is as old as a bill would be."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.money import Money
from services.finance.bills.rules import Age
from services.finance.periods.rules import month_of

MONTHS_MAX: Final = 36
MONTHS_DEFAULT: Final = 12
#: Per currency. The others are one line, so that totals still are the sums of their lines.
LINES_MAX: Final = 50
_MONTHS_OF_A_YEAR: Final = 12
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


class Spent(NamedTuple):
    """What went to one party in one month in one currency; the party is None where none is named."""

    party_id: UUID | None
    month: date
    currency: str
    amount_minor: int


class Owed(NamedTuple):
    """What is still to be paid to one party, and how old that is."""

    party_id: UUID | None
    age: Age
    currency: str
    amount_minor: int


@dataclass(frozen=True)
class Line:
    """One party, or the sum of several. `spent` has an amount for each month and `owed` one for each age, in order;
    the totals are their sums.
    """

    spent: Sequence[Money]
    owed: Sequence[Money]
    spent_total: Money
    owed_total: Money
    party_id: UUID | None = None
    is_rest: bool = False


@dataclass(frozen=True)
class OfCurrency:
    """All of one currency; `sum` is of `lines`, column by column."""

    currency: str
    sum: Line
    lines: Sequence[Line]


@dataclass(frozen=True)
class _Columns:
    """A line in minor units: thousands are added up to show some fifty."""

    spent: list[int]
    owed: list[int]


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


def by_currency(spent: Iterable[Spent], owed: Iterable[Owed], period: Months) -> list[OfCurrency]:
    """What was found, as tables: a currency each, and in it a line for each party, those with the most first.

    Behind the first `LINES_MAX` of them the rest is one line. Every sum is the sum of its lines.
    """
    months = {month: place for place, month in enumerate(period.each())}
    ages = {age: place for place, age in enumerate(Age)}

    def nothing() -> _Columns:
        return _Columns([0] * len(months), [0] * len(ages))

    found: dict[str, dict[UUID | None, _Columns]] = defaultdict(lambda: defaultdict(nothing))
    for party_id, month, currency, amount_minor in spent:
        found[currency][party_id].spent[months[month]] += amount_minor
    for party_id, age, currency, amount_minor in owed:
        found[currency][party_id].owed[ages[age]] += amount_minor
    return [_of_currency(currency, parties) for currency, parties in sorted(found.items())]


def _of_currency(currency: str, parties: Mapping[UUID | None, _Columns]) -> OfCurrency:
    ranked = sorted(parties.items(), key=lambda item: (-sum(item[1].spent), -sum(item[1].owed), str(item[0])))
    shown = [_line(columns, currency, party_id=party_id) for party_id, columns in ranked[:LINES_MAX]]
    if rest := [columns for _, columns in ranked[LINES_MAX:]]:
        shown.append(_line(_together(rest), currency, is_rest=True))
    return OfCurrency(currency, _line(_together(parties.values()), currency), shown)


def _together(several: Collection[_Columns]) -> _Columns:
    return _Columns(
        spent=[sum(column) for column in zip(*(each.spent for each in several), strict=True)],
        owed=[sum(column) for column in zip(*(each.owed for each in several), strict=True)],
    )


def _line(columns: _Columns, currency: str, *, party_id: UUID | None = None, is_rest: bool = False) -> Line:
    return Line(
        spent=[Money(minor, currency) for minor in columns.spent],
        owed=[Money(minor, currency) for minor in columns.owed],
        spent_total=Money(sum(columns.spent), currency),
        owed_total=Money(sum(columns.owed), currency),
        party_id=party_id,
        is_rest=is_rest,
    )


def _back(month: date, count: int) -> date:
    number = month.year * _MONTHS_OF_A_YEAR + month.month - 1 - count
    year, month_index = divmod(number, _MONTHS_OF_A_YEAR)
    return date(year, month_index + 1, 1)
