from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Date

from access.scopes import ScopeFilter
from chassis.paging import Listing
from contracts.identifiers import CompanyId
from contracts.money import Money
from services.finance.dashboards import rules
from services.finance.dashboards.rules import Months, OfCurrency, Owed, Spent
from services.finance.expenses.rules import ExpenseState
from services.finance.expenses.tables import Expense


class Party(StrEnum):
    """By whom a dashboard adds up: to whom the money goes, or who asked for it on an artist's side."""

    VENDOR = "vendor"
    AGENCY = "agency"


_PARTY_OF: Final[Mapping[Party, Any]] = {Party.VENDOR: Expense.vendor_id, Party.AGENCY: Expense.agency_id}
_EXPENSES: Final = Listing(
    Expense,
    sorts={"created": Expense.id},
    default="-created",
    scopes={"business_unit": Expense.business_unit_id, "event": Expense.event_id},
)
#: Spent is what was agreed to; it is owed until it is paid.
_SPENT: Final = (ExpenseState.APPROVED, ExpenseState.SCHEDULED, ExpenseState.PAID)
_OWED: Final = (ExpenseState.APPROVED, ExpenseState.SCHEDULED)


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
    bounds = _EXPENSES.within(company_id, scope)
    spent = await _spent(work, _PARTY_OF[party], period, bounds)
    owed = await _owed(work, _PARTY_OF[party], bounds)
    return Dashboard(party, period, today, rules.by_currency(spent, owed, period, today))


async def _spent(work: AsyncSession, party: Any, period: Months, bounds: Sequence[ColumnElement[bool]]) -> list[Spent]:
    month = cast(func.date_trunc("month", Expense.incurred_on), Date)
    rows = select(party, month, Expense.currency, func.sum(Expense.amount_minor)).where(
        *bounds,
        Expense.state.in_(_SPENT),
        Expense.incurred_on >= period.first,
        Expense.incurred_on < period.end,
    )
    found = await work.execute(rows.group_by(party, month, Expense.currency))
    return [Spent(party_id, day, Money(int(amount), currency)) for party_id, day, currency, amount in found]


async def _owed(work: AsyncSession, party: Any, bounds: Sequence[ColumnElement[bool]]) -> list[Owed]:
    # It is due on the day it is to be paid; as long as there is none, since it was incurred.
    due_on = func.coalesce(Expense.scheduled_for, Expense.incurred_on)
    sums = select(party, due_on, Expense.currency, func.sum(Expense.amount_minor)).where(
        *bounds, Expense.state.in_(_OWED)
    )
    found = await work.execute(sums.group_by(party, due_on, Expense.currency))
    return [Owed(party_id, due, Money(int(amount), currency)) for party_id, due, currency, amount in found]
