from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import reduce
from operator import add
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CompoundSelect,
    Select,
    bindparam,
    case,
    cast,
    func,
    null,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Text

from access.scopes import ScopeFilter
from contracts.identifiers import CompanyId
from infra.postgres.companies import every_company
from infra.postgres.database import Database
from services.finance.dashboards import rules
from services.finance.dashboards.rules import LINES_MAX, Line, Months, OfCurrency, Span
from services.finance.dashboards.tables import SpentSum
from services.finance.expenses.rules import OWED_STATES, SPENT_STATES
from services.finance.expenses.tables import LISTING, Expense


class Party(StrEnum):
    """By whom a dashboard adds up: to whom the money goes, or who asked for it on an artist's side."""

    VENDOR = "vendor"
    AGENCY = "agency"


#: Columns of tables, not of models: sums are no objects, and SQLAlchemy takes longer to make them as if.
_SUMS: Final = SpentSum.__table__.c
_ROWS: Final = Expense.__table__.c
_PARTY_OF: Final[Mapping[Party, Any]] = {Party.VENDOR: _ROWS.vendor_id, Party.AGENCY: _ROWS.agency_id}
#: Spent is what was agreed to; it is owed until it is paid. Written into the statement, so that PostgreSQL knows its
#: indexes of just these states for the ones to take.
_IS_SPENT: Final = Expense.state.in_(bindparam("spent", SPENT_STATES, expanding=True, literal_execute=True))
_IS_OWED: Final = Expense.state.in_(bindparam("owed", OWED_STATES, expanding=True, literal_execute=True))

#: In one statement: whoever reads meanwhile sees the rows that go, or the one that comes.
_FOLD: Final = text("""
    with fresh as (
        select distinct party, party_id, month, currency from spent_sums
        where company_id = :company_id and not is_folded
    ), gone as (
        delete from spent_sums as own using fresh
        where own.company_id = :company_id and own.party = fresh.party and own.month = fresh.month
            and own.party_id is not distinct from fresh.party_id and own.currency = fresh.currency
        returning own.*
    )
    insert into spent_sums (company_id, party, party_id, month, currency, amount_minor, is_folded)
    select company_id, party, party_id, month, currency, sum(amount_minor), true from gone
    group by company_id, party, party_id, month, currency having sum(amount_minor) <> 0
""")


@dataclass(frozen=True)
class Dashboard:
    party: Party
    months: Months
    today: date
    currencies: Sequence[OfCurrency]


@dataclass(frozen=True)
class _Amounts:
    """Rows to be added up. Each is an amount of a day, of a party, in a currency."""

    columns: Any
    party_id: Any
    day: Any
    where: Sequence[ColumnElement[bool]]

    def by_party(self, *spans: Span | None) -> Select[Any]:
        """For each party and currency the sum of each span of days, and nothing where there is none."""
        sums = [
            null() if span is None else func.sum(self.columns.amount_minor).filter(*_within(self.day, span))
            for span in spans
        ]
        key = (self.columns.currency, self.party_id)
        named = (each.label(_name(place)) for place, each in enumerate(sums))
        return select(key[0], key[1].label("party_id"), *named).where(*self.where).group_by(*key)


async def dashboard(
    work: AsyncSession,
    company_id: CompanyId,
    scope: ScopeFilter,
    party: Party,
    *,
    first: date | None,
    before: date | None,
    today: date,
) -> Dashboard:
    """What went to each vendor or agency in these months, and what is owed to it today, of the expenses in scope.

    Raises PeriodRefusedError.
    """
    period = rules.months(first, before, today)
    party_id, in_period = _PARTY_OF[party], (period.first, period.end)
    reach = LISTING.within(company_id, scope)
    if scope.is_unbounded:
        # Of all expenses of a company there may be too many to add them up again for every look.
        own = (_SUMS.company_id == company_id, _SUMS.party == party)
        spent = _Amounts(_SUMS, _SUMS.party_id, _SUMS.month, (*own, *_within(_SUMS.month, in_period)))
    else:
        of_part = (*reach, _IS_SPENT, *_within(_ROWS.incurred_on, in_period))
        spent = _Amounts(_ROWS, party_id, _ROWS.incurred_on, of_part)
    # It is due on the day it is to be paid; as long as there is none, since it was incurred.
    due_on = func.coalesce(_ROWS.scheduled_for, _ROWS.incurred_on)
    owed = _Amounts(_ROWS, party_id, due_on, (*reach, _IS_OWED))
    months, ages = period.spans(), rules.age_spans(today)
    parts = union_all(spent.by_party(*months, *(None for _ in ages)), owed.by_party(*(None for _ in months), *ages))
    # One statement: all of the answer is as of one moment.
    found = await work.execute(_shown(parts, len(months), len(ages)))
    lines = (
        Line(currency, shown_id, line > LINES_MAX, _whole(minor[: len(months)]), _whole(minor[len(months) :]))
        for currency, line, shown_id, minor in found
    )
    return Dashboard(party, period, today, rules.by_currency(lines))


def _shown(parts: CompoundSelect[Any], months: int, ages: int) -> Select[Any]:
    """Of parties in parts, those with the most spent of each currency, then with the most owed, and the rest as one."""
    part = parts.subquery("parts").c
    sums = [func.coalesce(func.sum(part[_name(place)]), 0) for place in range(months + ages)]
    spent, owed = reduce(add, sums[:months]), reduce(add, sums[months:])
    rank = func.row_number().over(partition_by=part.currency, order_by=(spent.desc(), owed.desc(), part.party_id))
    named = [each.label(_name(place)) for place, each in enumerate(sums)]
    parties = select(part.currency, part.party_id, rank.label("rank"), *named).group_by(part.currency, part.party_id)
    # Of what was taken back again a sum is left, of nothing.
    ranked = parties.having(or_(spent != 0, owed != 0)).subquery("ranked").c
    line = func.least(ranked.rank, LINES_MAX + 1).label("line")
    shown_id = case((ranked.rank <= LINES_MAX, ranked.party_id)).label("shown_id")
    shown = select(*ranked, line, shown_id).subquery("shown").c
    key = (shown.currency, shown.line, shown.shown_id)
    amounts = array([func.sum(shown[_name(place)]) for place in range(months + ages)])
    return select(*key, cast(amounts, ARRAY(Text))).group_by(*key).order_by(shown.currency, shown.line)


def _whole(minor: Sequence[str]) -> list[int]:
    return [int(each) for each in minor]


def _name(place: int) -> str:
    return f"sum_{place}"


def _within(day: Any, span: Span) -> list[ColumnElement[bool]]:
    first, end = span
    return [*([day >= first] if first else []), *([day < end] if end else [])]


async def fold(database: Database) -> None:
    """Make one row of all there are of a sum again, company by company, where nobody else is at it."""
    async for company_id in every_company(database):
        async with database.unit_of_work(company_id=company_id) as work:
            own_lock = func.hashtextextended(f"spent_sums {company_id}", 0)
            if await work.scalar(select(func.pg_try_advisory_xact_lock(own_lock))):
                await work.execute(_FOLD, {"company_id": company_id})
