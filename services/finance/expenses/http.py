from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query, Response
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.idempotency import Repeatable
from chassis.paging import Paged
from chassis.preconditions import set_entity_tag
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
    version: int
    created_by: UUID
    created_at: datetime


class ExpensePage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    expenses: list[ExpenseBody]
    next: str | None = None


@expenses.post("/expenses", status_code=201, responses=problem_statuses(401, 403, 422, 503))
@guard(Permission("finance.expenses.write", ScopeSource.BODY))
async def add_expense(
    body: NewExpense, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> ExpenseBody:
    """Put down an expense."""
    new = operations.NewExpense(
        description=body.description,
        amount=Money.parse(body.amount, body.currency),
        incurred_on=body.incurred_on,
        business_unit_id=body.business_unit_id,
        event_id=body.event_id,
    )

    async def add() -> ExpenseBody:
        return _body(await operations.add(work, access, new, now=now))

    added = await once.answer(ExpenseBody, add, scope=new.scope)
    set_entity_tag(response, added.version)
    return added


@expenses.get("/expenses", responses=problem_statuses(401, 403, 422, 503))
@guard(Permission("finance.expenses.read", ScopeSource.FILTER))
async def list_expenses(
    access: Access,
    work: Work,
    asked: Paged,
    business_unit_id: UUID | None = None,
    event_id: UUID | None = None,
    incurred_from: Annotated[DateText | None, Query()] = None,
    incurred_before: Annotated[DateText | None, Query()] = None,
) -> ExpensePage:
    """The company's expenses within the caller's scopes, sorted by created or incurred_on; the newest first."""
    wanted = operations.ExpenseFilter(
        business_unit_id=business_unit_id,
        event_id=event_id,
        incurred_from=incurred_from,
        incurred_before=incurred_before,
    )
    page = await operations.page(work, access.company_id, access.scope_filter, asked, wanted)
    return ExpensePage(expenses=[_body(each) for each in page.rows], next=page.next)


@expenses.get("/expenses/{expense_id}", responses=problem_statuses(401, 403, 404, 422, 503))
@guard(Permission("finance.expenses.read", ScopeSource.OBJECT))
async def read_expense(expense_id: UUID, access: Access, work: Work, response: Response) -> ExpenseBody:
    """One expense."""
    expense = await operations.one(work, access, expense_id)
    set_entity_tag(response, expense.version)
    return _body(expense)


@expenses.get("/expenses/{expense_id}/history", responses=problem_statuses(401, 403, 404, 422, 503))
@guard(Permission("finance.expenses.read", ScopeSource.OBJECT))
async def read_expense_history(expense_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What happened to one expense, the newest first."""
    expense = await operations.one(work, access, expense_id)
    return await history(work, asked, access.company_id, expense.id)


def _body(expense: Expense) -> ExpenseBody:
    return ExpenseBody(
        id=expense.id,
        description=expense.description,
        amount=str(Money(expense.amount_minor, expense.currency)),
        currency=expense.currency,
        incurred_on=expense.incurred_on,
        business_unit_id=expense.business_unit_id,
        event_id=expense.event_id,
        version=expense.version,
        created_by=expense.created_by,
        created_at=expense.created_at,
    )
