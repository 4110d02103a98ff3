from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func
from sqlalchemy.ext.asyncio import AsyncSession

from access.scopes import ScopeFilter, ScopeValue
from chassis.audit import Snapshot, snapshot
from chassis.objects import Objects, set_values, value_of, values_of
from chassis.paging import Listing, Page, PageRequest, asked_for
from chassis.preconditions import Expected
from chassis.states import StateTopic
from contracts.events.promoter import EventChanged, EventStatus, EventTimes
from contracts.identifiers import CompanyId, new_id
from middleware.context import AccessContext
from services.promoter.events import rules
from services.promoter.events.rules import EventDetails, EventState
from services.promoter.events.tables import Event

#: Events without a date come behind all that have one.
_NO_DATE: Final = datetime(9999, 12, 31, tzinfo=UTC)

LISTING: Final = Listing(
    Event,
    sorts={"created": Event.id, "starts_at": func.coalesce(Event.starts_at, _NO_DATE), "title": Event.title},
    default="-created",
    scopes={"business_unit": Event.business_unit_id, "event": Event.id},
)
EVENTS: Final = Objects(
    Event,
    unknown=rules.EventUnknownError,
    scope_of=lambda row: {"business_unit": row.business_unit_id, "event": row.id},
)


@dataclass(frozen=True)
class EventFilter:
    """Which events are asked for; None asks for all. Times are of the start: from the first, up to the second."""

    states: tuple[EventState, ...] | None = None
    business_unit_id: UUID | None = None
    starts_from: datetime | None = None
    starts_before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        return asked_for(self, _CONDITIONS)


_CONDITIONS: Final[Mapping[str, Callable[[Any], ColumnElement[bool]]]] = {
    "states": Event.state.in_,
    "business_unit_id": Event.business_unit_id.__eq__,
    "starts_from": Event.starts_at.__ge__,
    "starts_before": Event.starts_at.__lt__,
}


def scope_of_new(details: EventDetails) -> Mapping[str, ScopeValue]:
    """A new event is none of those a grant can name."""
    return {"business_unit": details.business_unit_id, "event": None}


async def create(
    work: AsyncSession, access: AccessContext, details: EventDetails, *, now: datetime, action: str = "create"
) -> Event:
    """Make a draft. Raises OutOfScopeError and what `rules.check_details` raises."""
    access.require_scope(scope_of_new(details))
    rules.check_details(details, EventState.DRAFT)
    event = Event(
        id=new_id(),
        company_id=access.company_id,
        state=EventState.DRAFT.value,
        version=0,
        created_by=access.user_id,
        created_at=now,
        **values_of(details),
    )
    work.add(event)
    return await _write(work, access, event, action, now=now)


async def clone(work: AsyncSession, access: AccessContext, source: Event, *, title: str | None, now: datetime) -> Event:
    """Make a draft like an event the caller reaches, without its date. Raises OutOfScopeError."""
    return await create(work, access, rules.clone_of(details_of(source), title), now=now, action="clone")


async def edit(
    work: AsyncSession,
    access: AccessContext,
    event_id: UUID,
    changes: Mapping[str, Any],
    *,
    expected: Expected,
    now: datetime,
) -> Event:
    """Change what is written down of an event; `changes` are fields of EventDetails. What changes nothing leaves no
    trace.

    Raises EventUnknownError, OutOfScopeError for where it is and where it would go, VersionMismatchError,
    EventClosedError and what `rules.check_details` raises.
    """
    event = await EVENTS.locked(work, access, event_id, expected)
    details = replace(details_of(event), **changes)
    access.require_scope({"business_unit": details.business_unit_id, "event": event.id})
    rules.check_open(EventState(event.state))
    rules.check_details(details, EventState(event.state))
    if details == details_of(event):
        return event
    before = snapshot(event)
    set_values(event, details)
    return await _write(work, access, event, "edit", now=now, before=before)


async def move(
    work: AsyncSession, access: AccessContext, event_id: UUID, name: str, *, expected: Expected, now: datetime
) -> Event:
    """Make one of `rules.MOVES`.

    Raises EventUnknownError, OutOfScopeError, VersionMismatchError, IllegalMoveError or EventIncompleteError.
    """
    event = await EVENTS.locked(work, access, event_id, expected)
    before = snapshot(event)
    details, state = rules.moved(details_of(event), EventState(event.state), name)
    set_values(event, details)
    event.state = state.value
    return await _write(work, access, event, name, now=now, before=before)


async def page(
    work: AsyncSession, company_id: CompanyId, scope: ScopeFilter, asked: PageRequest, wanted: EventFilter
) -> Page[Event]:
    """The company's events in scope. Raises SortUnknownError or CursorInvalidError."""
    return await LISTING.page(work, asked, company_id=company_id, scope=scope, where=wanted.conditions())


def details_of(event: Event) -> EventDetails:
    return value_of(EventDetails, event)


async def _write(
    work: AsyncSession,
    access: AccessContext,
    event: Event,
    action: str,
    *,
    now: datetime,
    before: Snapshot | None = None,
) -> Event:
    """As every write, and published."""
    EVENTS.write(work, access, event, action, now=now, before=before)
    await EVENT_STATES.publish(work, event, actor=access.user_id, now=now)
    return event


def _state(event: Event) -> EventChanged:
    times = None
    if event.starts_at is not None and event.ends_at is not None and event.time_zone is not None:
        times = EventTimes(starts_at=event.starts_at, ends_at=event.ends_at, time_zone=event.time_zone)
    return EventChanged(
        event_id=event.id,
        status=EventStatus(event.state),
        title=event.title,
        business_unit_id=event.business_unit_id,
        times=times,
        space_id=event.space_id,
        venue_text=event.venue_text,
        currency=event.currency,
    )


def _removed(event_id: UUID) -> EventChanged:
    return EventChanged(
        event_id=event_id,
        status=EventStatus.REMOVED,
        title=None,
        business_unit_id=None,
        times=None,
        space_id=None,
        venue_text=None,
        currency=None,
    )


EVENT_STATES: Final = StateTopic("promoter.events.v1", Event, state=_state, removed=_removed)
