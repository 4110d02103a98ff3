from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from access.scopes import ScopeFilter, ScopeValue
from chassis.audit import snapshot
from chassis.objects import Objects, set_values, value_of, values_of
from chassis.paging import Listing, Page, PageRequest, asked_for
from chassis.preconditions import Expected
from contracts.identifiers import CompanyId, new_id
from middleware.context import AccessContext
from services.finance.income import rules
from services.finance.income.rules import IncomeDetails, IncomeKind, IncomeState
from services.finance.income.tables import Income
from services.finance.periods.tables import hold_open
from services.finance.postings.rules import edited
from services.finance.projections.events import check_event

LISTING: Final = Listing(
    Income,
    sorts={"created": Income.id, "received_on": Income.received_on},
    default="-created",
    scopes={"business_unit": Income.business_unit_id, "event": Income.event_id},
)
INCOME: Final = Objects(Income, unknown=rules.IncomeUnknownError, scope_of=lambda income: scope_of(details_of(income)))


@dataclass(frozen=True, kw_only=True)
class IncomeFilter:
    """Which income is asked for; None asks for all. Days are from the first up to, and without, the second."""

    states: tuple[IncomeState, ...] | None = None
    kinds: tuple[IncomeKind, ...] | None = None
    business_unit_id: UUID | None = None
    event_id: UUID | None = None
    received_from: date | None = None
    received_before: date | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        return asked_for(self, _CONDITIONS)


_CONDITIONS: Final[Mapping[str, Callable[[Any], ColumnElement[bool]]]] = {
    "states": Income.state.in_,
    "kinds": Income.kind.in_,
    "business_unit_id": Income.business_unit_id.__eq__,
    "event_id": Income.event_id.__eq__,
    "received_from": Income.received_on.__ge__,
    "received_before": Income.received_on.__lt__,
}


def scope_of(details: IncomeDetails) -> Mapping[str, ScopeValue]:
    return {"business_unit": details.business_unit_id, "event": details.event_id}


async def add(work: AsyncSession, access: AccessContext, details: IncomeDetails, *, now: datetime) -> Income:
    """Put down income.

    Raises OutOfScopeError, PeriodClosedError and what `rules.check_income` and `check_event` raise.
    """
    access.require_scope(scope_of(details))
    rules.check_income(details, now.date())
    await check_event(work, access.company_id, details.event_id)
    await hold_open(work, access.company_id, details.received_on)
    income = Income(
        id=new_id(),
        company_id=access.company_id,
        state=IncomeState.RECORDED.value,
        created_by=access.user_id,
        created_at=now,
        version=0,
        **values_of(details),
    )
    work.add(income)
    return INCOME.write(work, access, income, "add", now=now)


async def edit(
    work: AsyncSession,
    access: AccessContext,
    income_id: UUID,
    changes: Mapping[str, Any],
    *,
    expected: Expected,
    now: datetime,
) -> Income:
    """Change what is written down of income; `changes` are fields of IncomeDetails, the amount as two texts of which
    either may be missing. What changes nothing leaves no trace.

    Raises IncomeUnknownError, OutOfScopeError for where it is and where it would go, VersionMismatchError,
    IncomeVoidError, CurrencyUnknownError, PeriodClosedError and what `rules.check_income` and
    `check_event` raise.
    """
    income = await INCOME.locked(work, access, income_id, expected)
    before = details_of(income)
    details = edited(before, changes)
    access.require_scope(scope_of(details))
    rules.check_editable(IncomeState(income.state))
    rules.check_income(details, now.date())
    if details == before:
        return income
    await check_event(work, access.company_id, details.event_id, known=before.event_id)
    await hold_open(work, access.company_id, before.received_on, details.received_on)
    said = snapshot(income)
    set_values(income, details)
    return INCOME.write(work, access, income, "edit", now=now, before=said)


async def void(
    work: AsyncSession, access: AccessContext, income_id: UUID, reason: str, *, expected: Expected, now: datetime
) -> Income:
    """Take back what was put down in error.

    Raises IncomeUnknownError, OutOfScopeError, VersionMismatchError, IllegalMoveError or PeriodClosedError.
    """
    income = await INCOME.locked(work, access, income_id, expected)
    state = rules.MOVES.move(IncomeState(income.state), "void")
    await hold_open(work, access.company_id, income.received_on)
    said = snapshot(income)
    income.state, income.void_reason = state.value, reason
    return INCOME.write(work, access, income, "void", now=now, before=said)


async def page(
    work: AsyncSession, company_id: CompanyId, scope: ScopeFilter, asked: PageRequest, wanted: IncomeFilter
) -> Page[Income]:
    """The company's income in scope. Raises SortUnknownError or CursorInvalidError."""
    return await LISTING.page(work, asked, company_id=company_id, scope=scope, where=wanted.conditions())


def details_of(income: Income) -> IncomeDetails:
    return value_of(IncomeDetails, income, kind=IncomeKind(income.kind))
