from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from access.scopes import ScopeFilter, ScopeValue
from chassis.audit import record
from chassis.paging import Listing, Page, PageRequest
from contracts.identifiers import CompanyId, new_id
from contracts.money import Money
from middleware.context import AccessContext
from services.finance.expenses import rules
from services.finance.expenses.tables import Expense

LISTING: Final = Listing(
    Expense,
    sorts={"created": Expense.id, "incurred_on": Expense.incurred_on},
    default="-created",
    scopes={"business_unit": Expense.business_unit_id, "event": Expense.event_id},
)


@dataclass(frozen=True)
class NewExpense:
    description: str
    amount: Money
    incurred_on: date
    business_unit_id: UUID | None
    event_id: UUID | None

    @property
    def scope(self) -> Mapping[str, ScopeValue]:
        return {"business_unit": self.business_unit_id, "event": self.event_id}


@dataclass(frozen=True)
class ExpenseFilter:
    """Which expenses are asked for; None asks for all. Days are from the first up to, and without, the second."""

    business_unit_id: UUID | None = None
    event_id: UUID | None = None
    incurred_from: date | None = None
    incurred_before: date | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.business_unit_id is not None:
            found.append(Expense.business_unit_id == self.business_unit_id)
        if self.event_id is not None:
            found.append(Expense.event_id == self.event_id)
        if self.incurred_from is not None:
            found.append(Expense.incurred_on >= self.incurred_from)
        if self.incurred_before is not None:
            found.append(Expense.incurred_on < self.incurred_before)
        return found


async def add(work: AsyncSession, access: AccessContext, new: NewExpense, *, now: datetime) -> Expense:
    """Put down an expense. Raises OutOfScopeError, AmountInvalidError or ExpenseDateRefusedError."""
    access.require_scope(new.scope)
    rules.check_expense(new.amount, new.incurred_on, now.date())
    expense = Expense(
        id=new_id(),
        company_id=access.company_id,
        business_unit_id=new.business_unit_id,
        event_id=new.event_id,
        description=new.description,
        amount_minor=new.amount.amount_minor,
        currency=new.amount.currency,
        incurred_on=new.incurred_on,
        created_by=access.user_id,
        created_at=now,
        version=1,
    )
    work.add(expense)
    record(work, expense, "add", actor=access.user_id, now=now)
    return expense


async def page(
    work: AsyncSession, company_id: CompanyId, scope: ScopeFilter, asked: PageRequest, wanted: ExpenseFilter
) -> Page[Expense]:
    """The company's expenses in scope. Raises SortUnknownError or CursorInvalidError."""
    return await LISTING.page(work, asked, company_id=company_id, scope=scope, where=wanted.conditions())


async def one(work: AsyncSession, access: AccessContext, expense_id: UUID) -> Expense:
    """Raises ExpenseUnknownError, for another company's too, or OutOfScopeError."""
    found = await work.get(Expense, expense_id)
    if found is None or found.company_id != access.company_id:
        raise rules.ExpenseUnknownError
    access.require_scope({"business_unit": found.business_unit_id, "event": found.event_id})
    return found
