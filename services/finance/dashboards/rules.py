"""How expenses are added up by whom they go to; what is owed of them is as old as a bill would be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.money import Money, total
from services.finance.bills.rules import Age, age_of
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


@dataclass(frozen=True)
class Spent:
    """What went to one party in one month in one currency; the party is None where none is named."""

    party_id: UUID | None
    month: date
    amount: Money


@dataclass(frozen=True)
class Owed:
    """What is still to be paid to one party, and since when."""

    party_id: UUID | None
    due_on: date
    amount: Money


@dataclass(frozen=True)
class Line:
    """One party, or the sum of several. `spent` has an amount for each month and `owed` one for each age, in order."""

    spent: Sequence[Money]
    owed: Sequence[Money]
    party_id: UUID | None = None
    is_rest: bool = False

    @property
    def currency(self) -> str:
        return self.owed[0].currency

    @property
    def spent_total(self) -> Money:
        return total(self.spent, self.currency)

    @property
    def owed_total(self) -> Money:
        return total(self.owed, self.currency)


@dataclass(frozen=True)
class OfCurrency:
    """All of one currency; `sum` is of `lines`, column by column."""

    currency: str
    sum: Line
    lines: Sequence[Line]


@dataclass
class _Columns:
    spent: dict[date, Money] = field(default_factory=dict)
    owed: dict[Age, Money] = field(default_factory=dict)


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


def by_currency(spent: Iterable[Spent], owed: Iterable[Owed], period: Months, today: date) -> list[OfCurrency]:
    """What was found, as tables: a currency each, and in it a line for each party, those with the most first.

    Behind the first `LINES_MAX` of them the rest is one line. Every sum is the sum of its lines.
    """
    found: dict[str, dict[UUID | None, _Columns]] = {}
    for each in spent:
        columns = found.setdefault(each.amount.currency, {}).setdefault(each.party_id, _Columns())
        columns.spent[each.month] = columns.spent.get(each.month, Money(0, each.amount.currency)) + each.amount
    for item in owed:
        columns = found.setdefault(item.amount.currency, {}).setdefault(item.party_id, _Columns())
        age = age_of(item.due_on, today)
        columns.owed[age] = columns.owed.get(age, Money(0, item.amount.currency)) + item.amount
    return [_of_currency(currency, parties, period) for currency, parties in sorted(found.items())]


def _of_currency(currency: str, parties: dict[UUID | None, _Columns], period: Months) -> OfCurrency:
    nothing = Money(0, currency)
    lines = [
        Line(
            spent=[columns.spent.get(month, nothing) for month in period.each()],
            owed=[columns.owed.get(age, nothing) for age in Age],
            party_id=party_id,
        )
        for party_id, columns in parties.items()
    ]
    lines.sort(key=lambda line: (-line.spent_total.amount_minor, -line.owed_total.amount_minor, str(line.party_id)))
    shown, rest = lines[:LINES_MAX], lines[LINES_MAX:]
    if rest:
        shown.append(_sum(rest, currency, is_rest=True))
    return OfCurrency(currency, _sum(shown, currency), shown)


def _sum(lines: Sequence[Line], currency: str, *, is_rest: bool = False) -> Line:
    return Line(
        spent=[total(column, currency) for column in zip(*(line.spent for line in lines), strict=True)],
        owed=[total(column, currency) for column in zip(*(line.owed for line in lines), strict=True)],
        is_rest=is_rest,
    )


def _back(month: date, count: int) -> date:
    number = month.year * _MONTHS_OF_A_YEAR + month.month - 1 - count
    year, month_index = divmod(number, _MONTHS_OF_A_YEAR)
    return date(year, month_index + 1, 1)
