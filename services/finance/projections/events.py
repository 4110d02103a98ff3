"""The events of the promoter service, and what Finance asks of them."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Text, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from chassis.projections import Projected, Projection
from contracts.errors import DomainError, Kind
from contracts.events.promoter import EventChanged
from contracts.identifiers import CompanyId
from services.finance.database import Base


class EventUnknownError(DomainError):
    """Also for another company's event, and for one that was not told of yet: the answers are equal."""

    kind = Kind.INVALID
    code = "event_unknown"
    title = "There is no such event"
    pointer = "/event_id"

    def __init__(self) -> None:
        super().__init__("This company has no event with this id. One that was just made may be known in a moment.")


class EventStateUnknownError(DomainError):
    """Nothing is put down on a guess."""

    kind = Kind.UNAVAILABLE
    code = "event_state_unknown"
    title = "It is not known how this event stands"
    retry_after_seconds = 5


class ProjectedEvent(Projected, Base):
    """An event, as far as Finance asks for it: whether there is one, and what it is called."""

    __tablename__ = "projected_events"

    title: Mapped[str | None] = mapped_column(Text)


def _columns_of(event: EventChanged) -> Mapping[str, Any]:
    return {"title": event.title}


EVENTS: Final = Projection("promoter.events.v1", ProjectedEvent, columns_of=_columns_of)


async def known_event(work: AsyncSession, company_id: CompanyId, event_id: UUID) -> ProjectedEvent:
    """The company's event. Raises EventUnknownError, also for one that was removed, or EventStateUnknownError."""
    found = await work.get(ProjectedEvent, (company_id, event_id), populate_existing=True)
    if found is None or (found.is_known and found.is_removed):
        raise EventUnknownError
    if not found.is_known:
        raise EventStateUnknownError("Its newest state could not be read. Try again in a moment.")
    return found


async def check_event(
    work: AsyncSession, company_id: CompanyId, event_id: UUID | None, *, known: UUID | None = None
) -> None:
    """That what is put down on an event is put down on one there is. What was on it before, on the `known` one, may
    outlive it. Raises EventUnknownError or EventStateUnknownError.
    """
    if event_id is not None and event_id != known:
        await known_event(work, company_id, event_id)


async def titles(work: AsyncSession, company_id: CompanyId) -> Mapping[UUID, str]:
    """What the company's events are called, as far as that is known; also where the newest state is not."""
    told = select(ProjectedEvent.id, ProjectedEvent.title).where(
        ProjectedEvent.company_id == company_id, ProjectedEvent.title.is_not(None)
    )
    return {row.id: row.title for row in await work.execute(told)}
