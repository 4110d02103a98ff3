from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Final
from uuid import UUID

from fastapi import Header, Query, Response
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.paging import Paged
from chassis.preconditions import IF_MATCH_TOLD, expected_of, set_entity_tag
from chassis.request import Access, Now, Work
from chassis.routing import CurrencyText, DateText, RequestModel, ResponseModel, problem_statuses, router
from middleware.guards import NoScope, Permission, ScopeSource, guard
from services.finance.manifest import MANIFEST
from services.finance.rates import operations
from services.finance.rates.rules import Rates
from services.finance.rates.tables import DayRates

rates = router(prefix=MANIFEST.route_group, tag="rates")

_READ: Final = Permission("finance.expenses.read", NoScope("what a currency was worth is known to everybody"))


class NewRates(RequestModel):
    """One unit of `base` is so much of each currency in `rates`, as decimal text; `source` is who published it."""

    day: DateText
    base: CurrencyText
    source: Annotated[str, Field(min_length=1, max_length=200)]
    rates: Annotated[
        dict[CurrencyText, Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]], Field(max_length=200)
    ]


class RatesBody(ResponseModel):
    id: UUID
    day: date
    base: str
    source: str
    rates: dict[str, str]
    version: int
    created_by: UUID
    created_at: datetime


class RatesPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    rates: list[RatesBody]
    next: str | None = None


@rates.put("/rates", responses=problem_statuses(409, 412, 428))
@guard(Permission("finance.rates.manage", ScopeSource.BODY))
async def put_rates(
    body: NewRates,
    access: Access,
    work: Work,
    now: Now,
    response: Response,
    if_match: Annotated[str | None, Header(json_schema_extra=IF_MATCH_TOLD)] = None,
) -> RatesBody:
    """Set all exchange rates of a day. If-Match is needed where there are rates of that day and they differ."""
    values = {quote: Decimal(value) for quote, value in body.rates.items()}
    given = Rates(day=body.day, base=body.base, source=body.source, values=values)
    expected = None if if_match is None else expected_of(if_match)
    return _shown(await operations.put(work, access, given, expected=expected, now=now), response)


@rates.get("/rates")
@guard(_READ)
async def list_rates(
    access: Access,
    work: Work,
    asked: Paged,
    day_from: Annotated[DateText | None, Query()] = None,
    day_before: Annotated[DateText | None, Query()] = None,
) -> RatesPage:
    """The company's exchange rates day by day, sorted by day; the newest first."""
    wanted = operations.RatesFilter(day_from=day_from, day_before=day_before)
    page = await operations.page(work, access.company_id, asked, wanted)
    return RatesPage(rates=[RatesBody.model_validate(each) for each in page.rows], next=page.next)


@rates.get("/rates/{rates_id}", responses=problem_statuses(404))
@guard(_READ)
async def read_rates(rates_id: UUID, access: Access, work: Work, response: Response) -> RatesBody:
    """The exchange rates of one day."""
    return _shown(await operations.RATES.one(work, access, rates_id), response)


@rates.get("/rates/{rates_id}/history", responses=problem_statuses(404))
@guard(_READ)
async def read_rates_history(rates_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What the exchange rates of one day were, the newest first."""
    row = await operations.RATES.one(work, access, rates_id)
    return await history(work, asked, access.company_id, row.id)


def _shown(row: DayRates, response: Response) -> RatesBody:
    set_entity_tag(response, row.version)
    return RatesBody.model_validate(row)
