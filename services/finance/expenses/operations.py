from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from access.scopes import ScopeFilter
from contracts.identifiers import CompanyId, new_id
from contracts.money import Money
from middleware.context import AccessContext
from services.finance.expenses import rules
from services.finance.expenses.tables import Expense


@dataclass(frozen=True)
class NewExpense:
    description: str
    amount: Money
    incurred_on: date
    business_unit_id: UUID | None
    event_id: UUID | None


async def add(work: AsyncSession, access: AccessContext, new: NewExpense, *, now: datetime) -> Expense:
    """Put down an expense. Raises OutOfScopeError, AmountInvalidError or ExpenseDateRefusedError."""
    access.require_scope({"business_unit": new.business_unit_id, "event": new.event_id})
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
    )
    work.add(expense)
    return expense


async def page(
    work: AsyncSession, company_id: CompanyId, scope: ScopeFilter, *, before: UUID | None, limit: int
) -> list[Expense]:
    """The newest expenses in scope; `before` is the last id of the page before. Ids are in the order of creation."""
    query = select(Expense).where(Expense.company_id == company_id).order_by(Expense.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Expense.id < before)
    for column, scope_type in ((Expense.business_unit_id, "business_unit"), (Expense.event_id, "event")):
        allowed = scope.uuids(scope_type)
        if allowed != "*":
            query = query.where(column.in_(allowed))
    return list(await work.scalars(query))


async def one(work: AsyncSession, access: AccessContext, expense_id: UUID) -> Expense:
    """Raises ExpenseUnknownError, for another company's too, or OutOfScopeError."""
    found = await work.get(Expense, expense_id)
    if found is None or found.company_id != access.company_id:
        raise rules.ExpenseUnknownError
    access.require_scope({"business_unit": found.business_unit_id, "event": found.event_id})
    return found
