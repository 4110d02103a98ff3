import asyncio
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Query, Response

from chassis.downloads import file_answer, saved, shown
from chassis.request import Access, Now, Work
from chassis.routing import DateText, ResponseModel, router
from contracts.money import Money, decimal_text
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


class SumBody(ResponseModel):
    """`spent` is the sum of `spent_by_month`, `owed` that of `owed_by_age`: an amount for each month and age of the
    dashboard, in their order.
    """

    spent: str
    owed: str
    spent_by_month: list[str]
    owed_by_age: list[str]


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
    """Months from `first_day` up to, and without, `end_day`, each by its first day; what is owed is as of `today`."""

    party: Party
    first_day: date
    end_day: date
    today: date
    months: list[date]
    ages: list[Age]
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
    return DashboardBody(
        party=found.party,
        first_day=found.months.first,
        end_day=found.months.end,
        today=found.today,
        months=found.months.each(),
        ages=list(Age),
        currencies=[
            CurrencyBody(
                currency=each.currency,
                sum=SumBody(**_amounts(each.sum)),
                lines=[LineBody(id=line.party_id, is_rest=line.is_rest, **_amounts(line)) for line in each.lines],
            )
            for each in found.currencies
        ],
    )


def _amounts(line: Line) -> dict[str, Any]:
    return {
        "spent": decimal_text(line.spent_total, line.currency),
        "owed": decimal_text(line.owed_total, line.currency),
        "spent_by_month": [decimal_text(amount, line.currency) for amount in line.spent],
        "owed_by_age": [decimal_text(amount, line.currency) for amount in line.owed],
    }


def _picture(found: Dashboard) -> Response:
    panels: list[Panel] = []
    for each in found.currencies:
        months = [f"{month:%Y-%m}" for month in found.months.each()]
        panels.append(_panel(f"Spent by month, {each.currency}", months, each.sum.spent, each.currency))
        ages = [_words(age) for age in Age]
        panels.append(_panel(f"Owed by days it has been due, {each.currency}", ages, each.sum.owed, each.currency))
    title, note = _said(found)
    return shown(bar_chart(title, note, panels), file_name=f"{found.party}s.svg", media_type=svg_chart.MEDIA_TYPE)


def _panel(heading: str, labels: Sequence[str], amounts_minor: Sequence[int], currency: str) -> Panel:
    amounts = [Money(each, currency) for each in amounts_minor]
    bars = [Bar(label, each.major, f"{each} {currency}") for label, each in zip(labels, amounts, strict=True)]
    return Panel(heading, bars)


async def _document(found: Dashboard, now: datetime) -> Response:
    columns = [
        Column(found.party.capitalize(), 6),
        Column(""),
        *(Column(name, 2, "R") for name in ("Spent", *map(_words, Age))),
    ]
    rows = [
        [name, each.currency, *(decimal_text(amount, each.currency) for amount in (line.spent_total, *line.owed))]
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
