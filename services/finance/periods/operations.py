from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.audit import snapshot
from chassis.objects import Objects
from chassis.paging import Listing, Page, PageRequest
from chassis.preconditions import Expected
from contracts.identifiers import CompanyId, new_id
from middleware.context import AccessContext
from services.finance.periods import rules
from services.finance.periods.rules import PeriodState
from services.finance.periods.tables import Period, hold_month

LISTING: Final = Listing(Period, sorts={"month": Period.month}, default="-month")
PERIODS: Final = Objects(Period, unknown=rules.PeriodUnknownError)


async def close_first(work: AsyncSession, access: AccessContext, month: date, *, now: datetime) -> Period:
    """Close a month for the first time; `month` is its first day. Raises OutOfScopeError or PeriodKnownError."""
    access.require_scope(rules.SCOPE)
    await hold_month(work, access.company_id, month)
    known = select(Period.id).where(Period.company_id == access.company_id, Period.month == month)
    period_id = await work.scalar(known)
    if period_id is not None:
        raise rules.PeriodKnownError(f"{rules.month_text(month)} is the period {period_id}.")
    period = Period(
        id=new_id(),
        company_id=access.company_id,
        month=month,
        state=rules.MOVES.move(PeriodState.OPEN, "close").value,
        version=0,
        created_by=access.user_id,
        created_at=now,
    )
    work.add(period)
    return PERIODS.write(work, access, period, "close", now=now)


async def move(
    work: AsyncSession, access: AccessContext, period_id: UUID, name: str, *, expected: Expected, now: datetime
) -> Period:
    """Make one of `rules.MOVES`.

    Raises PeriodUnknownError, OutOfScopeError, VersionMismatchError or IllegalMoveError.
    """
    access.require_scope(rules.SCOPE)
    period = await PERIODS.locked(work, access, period_id, expected)
    await hold_month(work, access.company_id, period.month)
    before = snapshot(period)
    period.state = rules.MOVES.move(PeriodState(period.state), name).value
    return PERIODS.write(work, access, period, name, now=now, before=before)


async def page(
    work: AsyncSession, company_id: CompanyId, asked: PageRequest, *, state: PeriodState | None
) -> Page[Period]:
    """The company's months that are closed, or were. Raises SortUnknownError or CursorInvalidError."""
    wanted = () if state is None else (Period.state == state,)
    return await LISTING.page(work, asked, company_id=company_id, scope=None, where=wanted)
