from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.downloads import download, file_answer
from chassis.idempotency import Repeatable
from chassis.imports import ImportBody, incoming
from chassis.paging import Paged
from chassis.preconditions import IfMatch, set_entity_tag
from chassis.request import Access, Now, UnitsOfWork, Work
from chassis.routing import (
    AmountText,
    ChangesModel,
    CurrencyText,
    DateText,
    IdText,
    RequestModel,
    ResponseModel,
    problem_statuses,
    router,
    takes_bytes,
)
from chassis.uploads import CSV, MEBIBYTE, Upload, upload_body, uploaded
from contracts.money import Money
from infra.documents import csv_text
from infra.documents.csv_text import Cell, csv_bytes
from middleware.guards import Permission, ScopeSource, guard
from services.finance.expenses import operations
from services.finance.expenses.rules import MOVES, ExpenseDetails, ExpenseState
from services.finance.expenses.tables import EXPENSES, Expense, scope_of
from services.finance.manifest import MANIFEST
from services.finance.projections.events import titles

expenses = router(prefix=MANIFEST.route_group, tag="expenses")

_TABLE_MEGABYTES_MAX: Final = 25
CsvFile = Annotated[Upload, uploaded(CSV)]
#: The columns of an exported table. Those a table is imported with are the fields of NewExpense.
_EXPORTED: Final = (
    "id",
    "state",
    "incurred_on",
    "description",
    "amount",
    "currency",
    "business_unit_id",
    "event_id",
    "event_title",
    "category_id",
    "vendor_id",
    "agency_id",
    "scheduled_for",
    "paid_on",
    "created_at",
)

Words = Annotated[str, Field(min_length=1, max_length=500)]


class NewExpense(RequestModel):
    description: Words
    amount: AmountText
    currency: CurrencyText
    incurred_on: DateText
    business_unit_id: IdText | None = None
    event_id: IdText | None = None
    category_id: IdText | None = None
    vendor_id: IdText | None = None
    agency_id: IdText | None = None


class ExpenseChanges(ChangesModel, NewExpense):
    """Only what is to be different; null takes a value away."""


class ExpenseReason(RequestModel):
    """What is said to those whose expense it is."""

    reason: Words


class ExpenseSchedule(RequestModel):
    scheduled_for: DateText


class ExpensePayment(RequestModel):
    paid_on: DateText


class ExpenseBody(ResponseModel):
    """`moves` is what can be done with it in its state."""

    id: UUID
    state: ExpenseState
    moves: tuple[str, ...]
    description: str
    amount: str
    currency: str
    incurred_on: date
    business_unit_id: UUID | None
    event_id: UUID | None
    category_id: UUID | None
    vendor_id: UUID | None
    agency_id: UUID | None
    submitted_by: UUID | None
    submitted_at: datetime | None
    decided_by: UUID | None
    decided_at: datetime | None
    rejection_reason: str | None
    scheduled_for: date | None
    paid_on: date | None
    void_reason: str | None
    version: int
    created_by: UUID
    created_at: datetime


class ExpensePage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    expenses: list[ExpenseBody]
    next: str | None = None


class StateTotal(ResponseModel):
    state: ExpenseState
    expenses: int
    amount: str


class TotalsBody(ResponseModel):
    """The `amount` of the whole is the sum of those of the states."""

    currency: str
    states: list[StateTotal]
    expenses: int
    amount: str


async def _wanted(
    state: Annotated[list[ExpenseState] | None, Query()] = None,
    business_unit_id: UUID | None = None,
    event_id: UUID | None = None,
    category_id: UUID | None = None,
    vendor_id: UUID | None = None,
    agency_id: UUID | None = None,
    created_by: UUID | None = None,
    submitted_by: UUID | None = None,
    decided_by: UUID | None = None,
    incurred_from: Annotated[DateText | None, Query()] = None,
    incurred_before: Annotated[DateText | None, Query()] = None,
    scheduled_from: Annotated[DateText | None, Query()] = None,
    scheduled_before: Annotated[DateText | None, Query()] = None,
    paid_from: Annotated[DateText | None, Query()] = None,
    paid_before: Annotated[DateText | None, Query()] = None,
) -> operations.ExpenseFilter:
    return operations.ExpenseFilter(
        states=None if state is None else tuple(state),
        business_unit_id=business_unit_id,
        event_id=event_id,
        category_id=category_id,
        vendor_id=vendor_id,
        agency_id=agency_id,
        created_by=created_by,
        submitted_by=submitted_by,
        decided_by=decided_by,
        incurred_from=incurred_from,
        incurred_before=incurred_before,
        scheduled_from=scheduled_from,
        scheduled_before=scheduled_before,
        paid_from=paid_from,
        paid_before=paid_before,
    )


#: Which expenses a request is about, of those the caller reaches.
Wanted = Annotated[operations.ExpenseFilter, Depends(_wanted)]


@expenses.post("/expenses", status_code=201, responses=problem_statuses(409))
@guard(Permission("finance.expenses.write", ScopeSource.BODY))
async def add_expense(
    body: NewExpense, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> ExpenseBody:
    """Put down an expense."""
    details = _details(body)

    async def add() -> ExpenseBody:
        return _body(await operations.add(work, access, details, now=now))

    added = await once.answer(ExpenseBody, add, scope=scope_of(details))
    set_entity_tag(response, added.version)
    return added


@expenses.get("/expenses")
@guard(Permission("finance.expenses.read", ScopeSource.FILTER))
async def list_expenses(access: Access, work: Work, asked: Paged, wanted: Wanted) -> ExpensePage:
    """The company's expenses within the caller's scopes, sorted by created or incurred_on; the newest first."""
    page = await operations.page(work, access.company_id, access.scope_filter, asked, wanted)
    return ExpensePage(expenses=[_body(each) for each in page.rows], next=page.next)


# Before the routes of one expense, whose path would take the word for an id.
@expenses.get(
    "/expenses/export",
    response_class=StreamingResponse,
    responses={200: file_answer(CSV)},
)
@guard(Permission("finance.expenses.read", ScopeSource.FILTER))
async def export_expenses(access: Access, begin: UnitsOfWork, wanted: Wanted) -> StreamingResponse:
    """All of the company's expenses within the caller's scopes as CSV, the newest first."""
    found = operations.every(begin, access.company_id, access.scope_filter, wanted)
    async with begin() as work:
        event_titles = await titles(work, access.company_id)
    table = csv_bytes(_EXPORTED, (_cells(each, event_titles) async for each in found))
    return await download(table, file_name="expenses.csv", media_type=csv_text.MEDIA_TYPE)


@expenses.post(
    "/expenses/import",
    responses=problem_statuses(415),
    openapi_extra=upload_body(CSV),
)
@guard(Permission("finance.expenses.write", ScopeSource.BODY))
@takes_bytes(_TABLE_MEGABYTES_MAX * MEBIBYTE)
async def import_expenses(
    access: Access, begin: UnitsOfWork, now: Now, upload: CsvFile, *, dry_run: bool = False
) -> ImportBody:
    """Put down the expenses of a CSV as drafts: all of them, or none and what is wrong with which row.

    Its columns are the fields of an expense that is put down alone. A dry run says the same and puts down nothing.
    """
    async with incoming(upload, NewExpense, _details) as table:
        rows, first_rows = await operations.check_table(access, table, now=now)
        async with begin() as work:

            async def take_in() -> ImportBody:
                await operations.hold_table(work, access, first_rows)
                if not dry_run:
                    await operations.add_table(work, access, table, now=now)
                return ImportBody(rows=rows, imported=0 if dry_run else rows)

            # Row by row its scopes were judged above, whether or not it is a repetition.
            return await upload.once(work, table.sha256).answer(ImportBody, take_in, scope=None)


@expenses.get("/expenses/totals", responses=problem_statuses(409))
@guard(Permission("finance.expenses.read", ScopeSource.FILTER))
async def read_expense_totals(
    access: Access, work: Work, wanted: Wanted, currency: Annotated[str, Query(max_length=3)]
) -> TotalsBody:
    """What the expenses within the caller's scopes are per state and in all, in one currency; without a state asked for
    all that are not void.

    Each is converted by the rates of the day it was incurred on and rounded by itself.
    """
    sums = await operations.totals(work, access.company_id, access.scope_filter, wanted, currency)
    return TotalsBody(
        currency=sums.currency,
        states=[
            StateTotal(state=state, expenses=each.expenses, amount=str(each.amount)) for state, each in sums.by_state
        ],
        expenses=sums.whole.expenses,
        amount=str(sums.whole.amount),
    )


@expenses.get("/expenses/{expense_id}", responses=problem_statuses(404))
@guard(Permission("finance.expenses.read", ScopeSource.OBJECT))
async def read_expense(expense_id: UUID, access: Access, work: Work, response: Response) -> ExpenseBody:
    """One expense."""
    return _shown(await EXPENSES.one(work, access, expense_id), response)


@expenses.get("/expenses/{expense_id}/history", responses=problem_statuses(404))
@guard(Permission("finance.expenses.read", ScopeSource.OBJECT))
async def read_expense_history(expense_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What happened to one expense, the newest first."""
    expense = await EXPENSES.one(work, access, expense_id)
    return await history(work, asked, access.company_id, expense.id)


@expenses.patch("/expenses/{expense_id}", responses=problem_statuses(404, 409, 412, 428))
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
async def edit_expense(
    expense_id: UUID, body: ExpenseChanges, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> ExpenseBody:
    """Change what is written down of a draft, or of an expense that was rejected."""
    return _shown(await operations.edit(work, access, expense_id, body.said(), expected=expected, now=now), response)


async def _moving(
    expense_id: UUID, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> Callable[..., Awaitable[ExpenseBody]]:
    async def move(name: str, **said: Any) -> ExpenseBody:
        moved = await operations.move(work, access, expense_id, name, expected=expected, now=now, **said)
        return _shown(moved, response)

    return move


#: Makes a move of the expense in the path, in the version the caller has seen, with what is said to it.
Moving = Annotated[Callable[..., Awaitable[ExpenseBody]], Depends(_moving)]
_MOVE_PROBLEMS: Final = problem_statuses(404, 409, 412, 428)


@expenses.post("/expenses/{expense_id}/submit", responses=_MOVE_PROBLEMS)
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
async def submit_expense(move: Moving) -> ExpenseBody:
    """Ask for the decision about a draft, or again after it was rejected."""
    return await move("submit")


@expenses.post("/expenses/{expense_id}/approve", responses=_MOVE_PROBLEMS)
@guard(Permission("finance.expenses.approve", ScopeSource.OBJECT))
async def approve_expense(move: Moving) -> ExpenseBody:
    """Agree to what somebody else submitted, within one's limit."""
    return await move("approve")


@expenses.post("/expenses/{expense_id}/reject", responses=_MOVE_PROBLEMS)
@guard(Permission("finance.expenses.approve", ScopeSource.OBJECT))
async def reject_expense(body: ExpenseReason, move: Moving) -> ExpenseBody:
    """Give back what somebody else submitted; it can be changed and submitted again."""
    return await move("reject", reason=body.reason)


# Who pays carries out what others decided, so it takes no right to decide.
@expenses.post("/expenses/{expense_id}/schedule", responses=_MOVE_PROBLEMS)
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
async def schedule_expense(body: ExpenseSchedule, move: Moving) -> ExpenseBody:
    """Set the day an approved expense is to be paid on, or another one."""
    return await move("schedule", day=body.scheduled_for)


@expenses.post("/expenses/{expense_id}/pay", responses=_MOVE_PROBLEMS)
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
async def pay_expense(body: ExpensePayment, move: Moving) -> ExpenseBody:
    """Put down that a scheduled expense was paid."""
    return await move("pay", day=body.paid_on)


@expenses.post("/expenses/{expense_id}/void", responses=_MOVE_PROBLEMS)
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
async def void_expense(body: ExpenseReason, move: Moving) -> ExpenseBody:
    """Take back an expense that was not paid; it stays to be seen."""
    return await move("void", reason=body.reason)


def _details(body: NewExpense) -> ExpenseDetails:
    written = body.model_dump(exclude={"amount", "currency"})
    return ExpenseDetails(amount=Money.parse(body.amount, body.currency), **written)


def _cells(expense: Expense, event_titles: Mapping[UUID, str]) -> list[Cell]:
    """An amount is a number to whoever reads the table; all else that is text is written so that it runs nothing."""
    title = None if expense.event_id is None else event_titles.get(expense.event_id)
    made = {"amount": expense.amount.major, "event_title": title}
    return [made[name] if name in made else getattr(expense, name) for name in _EXPORTED]


def _shown(expense: Expense, response: Response) -> ExpenseBody:
    set_entity_tag(response, expense.version)
    return _body(expense)


def _body(expense: Expense) -> ExpenseBody:
    moves = MOVES.allowed(ExpenseState(expense.state))
    return ExpenseBody.of(expense, moves=moves, amount=str(expense.amount))
