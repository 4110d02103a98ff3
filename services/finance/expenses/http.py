from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import Field

from chassis.request import Access, Now, Work
from chassis.routing import DateText, IdText, RequestModel, ResponseModel, problem_statuses, router
from contracts.money import Money
from middleware.guards import Permission, ScopeSource, guard
from services.finance.expenses import operations
from services.finance.expenses.tables import Expense
from services.finance.manifest import MANIFEST

expenses = router(prefix=MANIFEST.route_group, tag="expenses")


class NewExpense(RequestModel):
    """`amount` is decimal text, such as "1234.50": a JSON number would have been a float on its way."""

    description: Annotated[str, Field(min_length=1, max_length=500)]
    amount: Annotated[str, Field(max_length=40)]
    currency: Annotated[str, Field(max_length=3)]
    incurred_on: DateText
    business_unit_id: IdText | None = None
    event_id: IdText | None = None


class ExpenseBody(ResponseModel):
    id: UUID
    description: str
    amount: str
    currency: str
    incurred_on: date
    business_unit_id: UUID | None
    event_id: UUID | None
    created_by: UUID
    created_at: datetime


class ExpensePage(ResponseModel):
    """`next` is the `before` of the next page, absent on the last."""

    expenses: list[ExpenseBody]
    next: UUID | None = None


@expenses.post("/expenses", status_code=201, responses=problem_statuses(401, 403, 422, 503))
@guard(Permission("finance.expenses.write", ScopeSource.BODY))
async def add_expense(body: NewExpense, access: Access, work: Work, now: Now) -> ExpenseBody:
    """Put down an expense."""
    new = operations.NewExpense(
        description=body.description,
        amount=Money.parse(body.amount, body.currency),
        incurred_on=body.incurred_on,
        business_unit_id=body.business_unit_id,
        event_id=body.event_id,
    )
    return _body(await operations.add(work, access, new, now=now))


@expenses.get("/expenses", responses=problem_statuses(401, 403, 422, 503))
@guard(Permission("finance.expenses.read", ScopeSource.FILTER))
async def list_expenses(
    access: Access, work: Work, before: UUID | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> ExpensePage:
    """The company's expenses within the caller's scopes, the newest first."""
    found = await operations.page(work, access.company_id, access.scope_filter, before=before, limit=limit)
    return ExpensePage(expenses=[_body(each) for each in found], next=found[-1].id if len(found) == limit else None)


@expenses.get("/expenses/{expense_id}", responses=problem_statuses(401, 403, 404, 422, 503))
@guard(Permission("finance.expenses.read", ScopeSource.OBJECT))
async def read_expense(expense_id: UUID, access: Access, work: Work) -> ExpenseBody:
    """One expense."""
    return _body(await operations.one(work, access, expense_id))


def _body(expense: Expense) -> ExpenseBody:
    return ExpenseBody(
        id=expense.id,
        description=expense.description,
        amount=str(Money(expense.amount_minor, expense.currency)),
        currency=expense.currency,
        incurred_on=expense.incurred_on,
        business_unit_id=expense.business_unit_id,
        event_id=expense.event_id,
        created_by=expense.created_by,
        created_at=expense.created_at,
    )
