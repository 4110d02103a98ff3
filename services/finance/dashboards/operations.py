from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, case, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Date, Text

from access.scopes import ScopeFilter
from contracts.identifiers import CompanyId
from infra.postgres.companies import every_company
from infra.postgres.database import Database
from services.finance.bills.rules import AGE_DAYS_MAX, Age
from services.finance.dashboards import rules
from services.finance.dashboards.rules import Months, OfCurrency, Owed, Spent
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
    reach = LISTING.within(company_id, scope)
    if scope.is_unbounded:
        spent = await _spent_by_sums(work, company_id, party, period)
    else:
        spent = await _spent_by_expenses(work, party, period, reach)
    owed = await _owed(work, party, today, reach)
    return Dashboard(party, period, today, rules.by_currency(spent, owed, period))


async def _spent_by_sums(work: AsyncSession, company_id: CompanyId, party: Party, period: Months) -> list[Spent]:
    """Of the whole company: of all its expenses there may be too many to add them up again for every look."""
    amount = func.sum(_SUMS.amount_minor)
    sums = (
        select(_SUMS.party_id, _SUMS.month, _SUMS.currency, cast(amount, Text))
        .where(
            _SUMS.company_id == company_id,
            _SUMS.party == party,
            _SUMS.month >= period.first,
            _SUMS.month < period.end,
        )
        .group_by(_SUMS.party_id, _SUMS.month, _SUMS.currency)
        .having(amount != 0)
    )
    return _read((await work.execute(sums)).all())


async def _spent_by_expenses(
    work: AsyncSession, party: Party, period: Months, reach: Sequence[ColumnElement[bool]]
) -> list[Spent]:
    """Of a part of the company."""
    month = cast(func.date_trunc("month", _ROWS.incurred_on), Date)
    key = (_PARTY_OF[party], month, _ROWS.currency)
    sums = (
        select(*key, cast(func.sum(_ROWS.amount_minor), Text))
        .where(*reach, _IS_SPENT, _ROWS.incurred_on >= period.first, _ROWS.incurred_on < period.end)
        .group_by(*key)
    )
    return _read((await work.execute(sums)).all())


def _read(sums: Iterable[Any]) -> list[Spent]:
    return [Spent(party_id, month, currency, int(minor)) for party_id, month, currency, minor in sums]


async def _owed(work: AsyncSession, party: Party, today: date, reach: Sequence[ColumnElement[bool]]) -> list[Owed]:
    # It is due on the day it is to be paid; as long as there is none, since it was incurred.
    due_on = func.coalesce(_ROWS.scheduled_for, _ROWS.incurred_on)
    ages = [(due_on >= today - timedelta(days=most), age.value) for age, most in AGE_DAYS_MAX.items()]
    age = case(*ages, else_=Age.DAYS_OVER_90.value).label("age")
    sums = (
        select(_PARTY_OF[party], age, _ROWS.currency, cast(func.sum(_ROWS.amount_minor), Text))
        .where(*reach, _IS_OWED)
        .group_by(_PARTY_OF[party], text("age"), _ROWS.currency)
    )
    found = (await work.execute(sums)).all()
    return [Owed(of, Age(old), currency, int(minor)) for of, old, currency, minor in found]


async def fold(database: Database) -> None:
    """Make one row of all there are of a sum again, company by company, where nobody else is at it."""
    async for company_id in every_company(database):
        async with database.unit_of_work(company_id=company_id) as work:
            own_lock = func.hashtextextended(f"spent_sums {company_id}", 0)
            if await work.scalar(select(func.pg_try_advisory_xact_lock(own_lock))):
                await work.execute(_FOLD, {"company_id": company_id})
