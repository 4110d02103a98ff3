from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.audit import record, snapshot
from chassis.objects import Objects
from chassis.paging import Listing, Page, PageRequest, asked_for
from chassis.preconditions import Expected, PreconditionRequiredError
from contracts.identifiers import CompanyId, new_id
from middleware.context import AccessContext
from services.finance.periods.tables import hold_open
from services.finance.rates import rules
from services.finance.rates.rules import Rates
from services.finance.rates.tables import DayRates

LISTING: Final = Listing(DayRates, sorts={"day": DayRates.day}, default="-day")
RATES: Final = Objects(DayRates, unknown=rules.RatesUnknownError)


@dataclass(frozen=True)
class RatesFilter:
    """Of which days, from the first up to, and without, the second; None asks for all."""

    day_from: date | None = None
    day_before: date | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        return asked_for(self, {"day_from": DayRates.day.__ge__, "day_before": DayRates.day.__lt__})


async def put(
    work: AsyncSession, access: AccessContext, rates: Rates, *, expected: Expected | None, now: datetime
) -> DayRates:
    """Set the rates of a day, all of them. To set what is set already leaves no trace.

    `expected` is needed to correct rates that are there: who corrects has seen what they were. Rates of a day in a
    closed month stay, for what was reckoned with them is closed. Raises OutOfScopeError, PreconditionRequiredError,
    VersionMismatchError, PeriodClosedError and what `rules.check_rates` raises.
    """
    access.require_scope(rules.SCOPE)
    rules.check_rates(rates, now.date())
    said: dict[str, Any] = {
        "base": rates.base,
        "source": rates.source,
        "rates": {quote: f"{value:f}" for quote, value in sorted(rates.values.items())},
    }
    new = insert(DayRates).values(
        id=new_id(),
        company_id=access.company_id,
        day=rates.day,
        version=1,
        created_by=access.user_id,
        created_at=now,
        **said,
    )
    # Of two who set the first rates of a day at once, the second waits here and then corrects those of the first.
    inserted = (await work.execute(new.on_conflict_do_nothing().returning(DayRates.id))).first()
    own = select(DayRates).where(DayRates.company_id == access.company_id, DayRates.day == rates.day)
    row = (await work.scalars(own.with_for_update())).one()
    if inserted is not None:
        if expected is not None:
            # Who corrects names what they have seen: of this day there was nothing.
            expected.check(0)
        await hold_open(work, access.company_id, rates.day)
        record(work, row, "set", actor=access.user_id, now=now)
        return row
    if expected is not None:
        expected.check(row.version)
    if all(getattr(row, name) == value for name, value in said.items()):
        return row
    if expected is None:
        raise PreconditionRequiredError("There are rates of this day. Send If-Match with their ETag to correct them.")
    await hold_open(work, access.company_id, rates.day)
    before = snapshot(row)
    for name, value in said.items():
        setattr(row, name, value)
    return RATES.write(work, access, row, "correct", now=now, before=before)


async def page(work: AsyncSession, company_id: CompanyId, asked: PageRequest, wanted: RatesFilter) -> Page[DayRates]:
    """The company's rates, day by day. Raises SortUnknownError or CursorInvalidError."""
    return await LISTING.page(work, asked, company_id=company_id, scope=None, where=wanted.conditions())
