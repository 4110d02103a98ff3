import asyncio
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Query, Response

from chassis.downloads import file_answer, saved, shown
from chassis.request import Access, Now, Work
from chassis.routing import DateText, ResponseModel, router
from contracts.money import Money
from infra.documents import pdf_table, svg_chart
from infra.documents.pdf_table import Column, table_document
from infra.documents.svg_chart import Bar, Panel, bar_chart
from middleware.guards import Permission, ScopeSource, guard
from services.finance.bills.rules import Age
from services.finance.dashboards import operations
from services.finance.dashboards.operations import Dashboard, Party
from services.finance.dashboards.rules import Line
from services.finance.manifest import MANIFEST

dashboards = router(prefix=MANIFEST.route_group, tag="dashboards")

_MAY_SEE: Final = Permission("finance.dashboards.read", ScopeSource.FILTER)
_PICTURE: Final[dict[int | str, Any]] = {200: file_answer(svg_chart.MEDIA_TYPE)}
_DOCUMENT: Final[dict[int | str, Any]] = {200: file_answer(pdf_table.MEDIA_TYPE)}


class AgeBody(ResponseModel):
    age: Age
    amount: str


class MonthBody(ResponseModel):
    """The first day of the month, and what was spent in it."""

    month: date
    amount: str


class SumBody(ResponseModel):
    """`spent` is the sum of `months`, `owed` that of `ages`."""

    spent: str
    owed: str
    months: list[MonthBody]
    ages: list[AgeBody]


class LineBody(SumBody):
    """One vendor or agency; without an id what names none or, where `is_rest`, all that have no line of their own."""

    id: UUID | None
    is_rest: bool


class CurrencyBody(ResponseModel):
    """Each amount of `sum` is the sum of those of `lines`."""

    currency: str
    sum: SumBody
    lines: list[LineBody]


class DashboardBody(ResponseModel):
    """Months from `first_day` up to, and without, `end_day`; what is owed is as of `today`."""

    party: Party
    first_day: date
    end_day: date
    today: date
    currencies: list[CurrencyBody]


def _of(party: Party) -> Any:
    """A dependency on the dashboard a request asks for."""

    async def provide(
        access: Access,
        work: Work,
        now: Now,
        first: Annotated[DateText | None, Query(alias="from")] = None,
        before: Annotated[DateText | None, Query()] = None,
    ) -> Dashboard:
        return await operations.dashboard(
            work, access.company_id, access.scope_filter, party, first=first, before=before, today=now.date()
        )

    return Depends(provide)


#: What was spent with each, month by month, and what is owed, of the expenses in the caller's scopes.
OfVendors = Annotated[Dashboard, _of(Party.VENDOR)]
OfAgencies = Annotated[Dashboard, _of(Party.AGENCY)]


@dashboards.get("/dashboards/vendors")
@guard(_MAY_SEE)
async def vendor_dashboard(found: OfVendors) -> DashboardBody:
    """What was spent with each vendor, month by month, and what is owed to it, within the caller's scopes."""
    return _body(found)


@dashboards.get("/dashboards/agencies")
@guard(_MAY_SEE)
async def agency_dashboard(found: OfAgencies) -> DashboardBody:
    """The same for agencies."""
    return _body(found)


@dashboards.get("/dashboards/vendors/picture", response_class=Response, responses=_PICTURE)
@guard(_MAY_SEE)
async def vendor_picture(found: OfVendors) -> Response:
    """The sums of the vendor dashboard as a picture."""
    return _picture(found)


@dashboards.get("/dashboards/agencies/picture", response_class=Response, responses=_PICTURE)
@guard(_MAY_SEE)
async def agency_picture(found: OfAgencies) -> Response:
    """The sums of the agency dashboard as a picture."""
    return _picture(found)


@dashboards.get("/dashboards/vendors/document", response_class=Response, responses=_DOCUMENT)
@guard(_MAY_SEE)
async def vendor_document(found: OfVendors, now: Now) -> Response:
    """The vendor dashboard as a document."""
    return await _document(found, now)


@dashboards.get("/dashboards/agencies/document", response_class=Response, responses=_DOCUMENT)
@guard(_MAY_SEE)
async def agency_document(found: OfAgencies, now: Now) -> Response:
    """The agency dashboard as a document."""
    return await _document(found, now)


def _body(found: Dashboard) -> DashboardBody:
    months = found.months.each()
    return DashboardBody(
        party=found.party,
        first_day=found.months.first,
        end_day=found.months.end,
        today=found.today,
        currencies=[
            CurrencyBody(
                currency=each.currency,
                sum=SumBody(**_columns(months, each.sum)),
                lines=[
                    LineBody(id=line.party_id, is_rest=line.is_rest, **_columns(months, line)) for line in each.lines
                ],
            )
            for each in found.currencies
        ],
    )


def _columns(months: Sequence[date], line: Line) -> dict[str, Any]:
    return {
        "spent": str(line.spent_total),
        "owed": str(line.owed_total),
        "months": [
            MonthBody(month=month, amount=str(amount)) for month, amount in zip(months, line.spent, strict=True)
        ],
        "ages": [AgeBody(age=age, amount=str(amount)) for age, amount in zip(Age, line.owed, strict=True)],
    }


def _picture(found: Dashboard) -> Response:
    panels: list[Panel] = []
    for each in found.currencies:
        months = [f"{month:%Y-%m}" for month in found.months.each()]
        panels.append(Panel(f"Spent by month, {each.currency}", _bars(months, each.sum.spent)))
        panels.append(
            Panel(f"Owed by days it has been due, {each.currency}", _bars([_words(age) for age in Age], each.sum.owed))
        )
    title, note = _said(found)
    return shown(bar_chart(title, note, panels), file_name=f"{found.party}s.svg", media_type=svg_chart.MEDIA_TYPE)


def _bars(labels: Sequence[str], amounts: Sequence[Money]) -> list[Bar]:
    return [
        Bar(label, amount.major, f"{amount} {amount.currency}") for label, amount in zip(labels, amounts, strict=True)
    ]


async def _document(found: Dashboard, now: datetime) -> Response:
    columns = [
        Column(found.party.capitalize(), 6),
        Column(""),
        *(Column(name, 2, "R") for name in ("Spent", *map(_words, Age))),
    ]
    rows = [
        [name, each.currency, str(line.spent_total), *(str(amount) for amount in line.owed)]
        for each in found.currencies
        for name, line in (*((_name(line), line) for line in each.lines), ("Sum", each.sum))
    ]
    title, note = _said(found)
    # Hundreds of lines take longer to set than others should wait for.
    content = await asyncio.to_thread(table_document, title, note, columns, rows, made_at=now)
    return saved(content, file_name=f"{found.party}s.pdf", media_type=pdf_table.MEDIA_TYPE)


def _words(age: Age) -> str:
    return age.removeprefix("days_").replace("_", " ")


def _name(line: Line) -> str:
    if line.is_rest:
        return "All others"
    return "Not named" if line.party_id is None else str(line.party_id)


def _said(found: Dashboard) -> tuple[str, str]:
    last = found.months.each()[-1]
    period = f"{found.months.first:%Y-%m} to {last:%Y-%m}, and owed on {found.today}"
    return f"Expenses by {found.party}", f"Agreed to and spent in the months {period}."
