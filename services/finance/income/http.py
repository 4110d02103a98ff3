from datetime import date, datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Query, Response
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.idempotency import Repeatable
from chassis.paging import Paged
from chassis.preconditions import IfMatch, set_entity_tag
from chassis.request import Access, Now, Work
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
)
from contracts.money import Money
from middleware.guards import Permission, ScopeSource, guard
from services.finance.income import operations
from services.finance.income.rules import MOVES, IncomeDetails, IncomeKind, IncomeState
from services.finance.income.tables import Income
from services.finance.manifest import MANIFEST

income = router(prefix=MANIFEST.route_group, tag="income")

Words = Annotated[str, Field(min_length=1, max_length=500)]
_CHANGE_PROBLEMS: Final = problem_statuses(404, 409, 412, 428)


class NewIncome(RequestModel):
    kind: Annotated[IncomeKind, Field(strict=False)]
    description: Words
    amount: AmountText
    currency: CurrencyText
    received_on: DateText
    business_unit_id: IdText | None = None
    event_id: IdText | None = None


class IncomeChanges(ChangesModel, NewIncome):
    """Only what is to be different; null takes a value away."""


class IncomeReason(RequestModel):
    reason: Words


class IncomeBody(ResponseModel):
    """`moves` is what can be done with it in its state."""

    id: UUID
    state: IncomeState
    moves: tuple[str, ...]
    kind: IncomeKind
    description: str
    amount: str
    currency: str
    received_on: date
    business_unit_id: UUID | None
    event_id: UUID | None
    void_reason: str | None
    version: int
    created_by: UUID
    created_at: datetime


class IncomePage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    income: list[IncomeBody]
    next: str | None = None


async def _wanted(
    state: Annotated[list[IncomeState] | None, Query()] = None,
    kind: Annotated[list[IncomeKind] | None, Query()] = None,
    business_unit_id: UUID | None = None,
    event_id: UUID | None = None,
    received_from: Annotated[DateText | None, Query()] = None,
    received_before: Annotated[DateText | None, Query()] = None,
) -> operations.IncomeFilter:
    return operations.IncomeFilter(
        states=None if state is None else tuple(state),
        kinds=None if kind is None else tuple(kind),
        business_unit_id=business_unit_id,
        event_id=event_id,
        received_from=received_from,
        received_before=received_before,
    )


#: Which income a request is about, of what the caller reaches.
Wanted = Annotated[operations.IncomeFilter, Depends(_wanted)]


@income.post("/income", status_code=201, responses=problem_statuses(409))
@guard(Permission("finance.income.write", ScopeSource.BODY))
async def add_income(
    body: NewIncome, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> IncomeBody:
    """Put down income."""
    written = body.model_dump(exclude={"amount", "currency"})
    details = IncomeDetails(amount=Money.parse(body.amount, body.currency), **written)

    async def add() -> IncomeBody:
        return _body(await operations.add(work, access, details, now=now))

    added = await once.answer(IncomeBody, add, scope=operations.scope_of(details))
    set_entity_tag(response, added.version)
    return added


@income.get("/income")
@guard(Permission("finance.income.read", ScopeSource.FILTER))
async def list_income(access: Access, work: Work, asked: Paged, wanted: Wanted) -> IncomePage:
    """The company's income within the caller's scopes, sorted by created or received_on; the newest first."""
    page = await operations.page(work, access.company_id, access.scope_filter, asked, wanted)
    return IncomePage(income=[_body(each) for each in page.rows], next=page.next)


@income.get("/income/{income_id}", responses=problem_statuses(404))
@guard(Permission("finance.income.read", ScopeSource.OBJECT))
async def read_income(income_id: UUID, access: Access, work: Work, response: Response) -> IncomeBody:
    """One income."""
    return _shown(await operations.INCOME.one(work, access, income_id), response)


@income.get("/income/{income_id}/history", responses=problem_statuses(404))
@guard(Permission("finance.income.read", ScopeSource.OBJECT))
async def read_income_history(income_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What happened to one income, the newest first."""
    found = await operations.INCOME.one(work, access, income_id)
    return await history(work, asked, access.company_id, found.id)


@income.patch("/income/{income_id}", responses=_CHANGE_PROBLEMS)
@guard(Permission("finance.income.write", ScopeSource.OBJECT))
async def edit_income(
    income_id: UUID, body: IncomeChanges, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> IncomeBody:
    """Change what is written down of income."""
    return _shown(await operations.edit(work, access, income_id, body.said(), expected=expected, now=now), response)


@income.post("/income/{income_id}/void", responses=_CHANGE_PROBLEMS)
@guard(Permission("finance.income.write", ScopeSource.OBJECT))
async def void_income(
    income_id: UUID, body: IncomeReason, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> IncomeBody:
    """Take back what was put down in error; it stays to be seen."""
    return _shown(await operations.void(work, access, income_id, body.reason, expected=expected, now=now), response)


def _shown(found: Income, response: Response) -> IncomeBody:
    set_entity_tag(response, found.version)
    return _body(found)


def _body(found: Income) -> IncomeBody:
    return IncomeBody.of(found, moves=MOVES.allowed(IncomeState(found.state)), amount=str(found.amount))
