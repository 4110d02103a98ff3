from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Response
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.idempotency import Repeatable
from chassis.paging import Paged
from chassis.preconditions import IfMatch, set_entity_tag
from chassis.request import Access, Now, Work
from chassis.routing import RequestModel, ResponseModel, problem_statuses, router
from middleware.guards import NoScope, Permission, ScopeSource, guard
from services.finance.manifest import MANIFEST
from services.finance.periods import operations
from services.finance.periods.rules import MOVES, SCOPE, PeriodState, month_text
from services.finance.periods.tables import Period

periods = router(prefix=MANIFEST.route_group, tag="periods")

_READ: Final = Permission("finance.expenses.read", NoScope("whether a month is closed says nothing of what is in it"))
#: The one key of finance that administers it: who sets the rates all figures rest on also says when they stand. A key
#: to approve would let whoever decides about some amounts close the books of all.
_ADMINISTER: Final = "finance.rates.manage"


class NewPeriod(RequestModel):
    """`month` is written as 2026-05."""

    month: Annotated[str, Field(pattern=r"^[1-9][0-9]{3}-(0[1-9]|1[0-2])$")]


class PeriodBody(ResponseModel):
    """`moves` is what can be done with it in its state."""

    id: UUID
    month: str
    state: PeriodState
    moves: tuple[str, ...]
    version: int
    created_by: UUID
    created_at: datetime


class PeriodPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    periods: list[PeriodBody]
    next: str | None = None


@periods.post("/periods", status_code=201, responses=problem_statuses(409))
@guard(Permission(_ADMINISTER, ScopeSource.BODY))
async def close_month(
    body: NewPeriod, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> PeriodBody:
    """Close a month of the company's books: nothing is written into it any more."""
    month = date.fromisoformat(f"{body.month}-01")

    async def close() -> PeriodBody:
        return _body(await operations.close_first(work, access, month, now=now))

    closed = await once.answer(PeriodBody, close, scope=SCOPE)
    set_entity_tag(response, closed.version)
    return closed


@periods.get("/periods")
@guard(_READ)
async def list_periods(access: Access, work: Work, asked: Paged, state: PeriodState | None = None) -> PeriodPage:
    """The months that are closed, or were, sorted by month; the newest first. Every other month is open."""
    page = await operations.page(work, access.company_id, asked, state=state)
    return PeriodPage(periods=[_body(each) for each in page.rows], next=page.next)


@periods.get("/periods/{period_id}", responses=problem_statuses(404))
@guard(_READ)
async def read_period(period_id: UUID, access: Access, work: Work, response: Response) -> PeriodBody:
    """One month that is closed, or was."""
    return _shown(await operations.PERIODS.one(work, access, period_id), response)


@periods.get("/periods/{period_id}/history", responses=problem_statuses(404))
@guard(_READ)
async def read_period_history(period_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """Who closed and reopened a month, the newest first."""
    period = await operations.PERIODS.one(work, access, period_id)
    return await history(work, asked, access.company_id, period.id)


async def _moving(
    period_id: UUID, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> Callable[[str], Awaitable[PeriodBody]]:
    async def move(name: str) -> PeriodBody:
        return _shown(await operations.move(work, access, period_id, name, expected=expected, now=now), response)

    return move


#: Makes a move of the period in the path, in the version the caller has seen.
Moving = Annotated[Callable[[str], Awaitable[PeriodBody]], Depends(_moving)]
_MOVE_PROBLEMS: Final = problem_statuses(404, 409, 412, 428)


@periods.post("/periods/{period_id}/close", responses=_MOVE_PROBLEMS)
@guard(Permission(_ADMINISTER, ScopeSource.OBJECT))
async def close_period(move: Moving) -> PeriodBody:
    """Close a month that was reopened."""
    return await move("close")


@periods.post("/periods/{period_id}/reopen", responses=_MOVE_PROBLEMS)
@guard(Permission(_ADMINISTER, ScopeSource.OBJECT))
async def reopen_period(move: Moving) -> PeriodBody:
    """Open a month again, for what was forgotten in it."""
    return await move("reopen")


def _shown(period: Period, response: Response) -> PeriodBody:
    set_entity_tag(response, period.version)
    return _body(period)


def _body(period: Period) -> PeriodBody:
    return PeriodBody.of(period, moves=MOVES.allowed(PeriodState(period.state)), month=month_text(period.month))
