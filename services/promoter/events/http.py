from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Response
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.idempotency import Repeatable
from chassis.paging import Paged
from chassis.preconditions import IfMatch, set_entity_tag
from chassis.request import Access, Now, Work
from chassis.routing import ChangesModel, IdText, InstantText, RequestModel, ResponseModel, problem_statuses, router
from middleware.guards import Permission, ScopeSource, guard
from services.promoter.events import operations
from services.promoter.events.rules import MOVES, EventDetails, EventState
from services.promoter.events.tables import Event
from services.promoter.manifest import MANIFEST

events = router(prefix=MANIFEST.route_group, tag="events")

Title = Annotated[str, Field(min_length=1, max_length=200)]


class NewEvent(RequestModel):
    """`time_zone` is a name of the IANA database; the event is from `starts_at` up to and without `ends_at`."""

    title: Title
    business_unit_id: IdText | None = None
    starts_at: InstantText | None = None
    ends_at: InstantText | None = None
    time_zone: Annotated[str, Field(max_length=64)] | None = None
    space_id: IdText | None = None
    venue_text: Title | None = None
    currency: Annotated[str, Field(max_length=3)] | None = None


class EventChanges(ChangesModel, NewEvent):
    """Only what is to be different; null takes a value away."""


class CloneOptions(RequestModel):
    """Without a title the clone has that of its original."""

    title: Title | None = None


class EventBody(ResponseModel):
    """`moves` is what can be done with it in its state."""

    id: UUID
    title: str
    state: EventState
    moves: tuple[str, ...]
    business_unit_id: UUID | None
    starts_at: datetime | None
    ends_at: datetime | None
    time_zone: str | None
    space_id: UUID | None
    venue_text: str | None
    currency: str | None
    version: int
    created_by: UUID
    created_at: datetime


class EventPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    events: list[EventBody]
    next: str | None = None


@events.post("/events", status_code=201)
@guard(Permission("promoter.events.create", ScopeSource.BODY))
async def create_event(
    body: NewEvent, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> EventBody:
    """Make a draft of an event."""
    details = EventDetails(**body.model_dump())

    async def create() -> EventBody:
        return _body(await operations.create(work, access, details, now=now))

    made = await once.answer(EventBody, create, scope=operations.scope_of_new(details))
    set_entity_tag(response, made.version)
    return made


@events.get("/events")
@guard(Permission("promoter.events.read", ScopeSource.FILTER))
async def list_events(
    access: Access,
    work: Work,
    asked: Paged,
    state: Annotated[list[EventState] | None, Query()] = None,
    business_unit_id: UUID | None = None,
    starts_from: Annotated[InstantText | None, Query()] = None,
    starts_before: Annotated[InstantText | None, Query()] = None,
) -> EventPage:
    """The company's events within the caller's scopes, sorted by created, starts_at or title; the newest first."""
    wanted = operations.EventFilter(
        states=None if state is None else tuple(state),
        business_unit_id=business_unit_id,
        starts_from=starts_from,
        starts_before=starts_before,
    )
    page = await operations.page(work, access.company_id, access.scope_filter, asked, wanted)
    return EventPage(events=[_body(each) for each in page.rows], next=page.next)


@events.get("/events/{event_id}", responses=problem_statuses(404))
@guard(Permission("promoter.events.read", ScopeSource.OBJECT))
async def read_event(event_id: UUID, access: Access, work: Work, response: Response) -> EventBody:
    """One event."""
    return _shown(await operations.EVENTS.one(work, access, event_id), response)


@events.get("/events/{event_id}/history", responses=problem_statuses(404))
@guard(Permission("promoter.events.read", ScopeSource.OBJECT))
async def read_event_history(event_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What happened to one event, the newest first."""
    event = await operations.EVENTS.one(work, access, event_id)
    return await history(work, asked, access.company_id, event.id)


@events.patch("/events/{event_id}", responses=problem_statuses(404, 409, 412, 428))
@guard(Permission("promoter.events.update", ScopeSource.OBJECT))
async def edit_event(
    event_id: UUID, body: EventChanges, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> EventBody:
    """Change what is written down of an event."""
    return _shown(await operations.edit(work, access, event_id, body.said(), expected=expected, now=now), response)


@events.post("/events/{event_id}/clone", status_code=201, responses=problem_statuses(404))
@guard(Permission("promoter.events.create", ScopeSource.OBJECT))
async def clone_event(
    event_id: UUID, body: CloneOptions, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> EventBody:
    """Make a draft like this event, without its date."""
    source = await operations.EVENTS.one(work, access, event_id)

    async def clone() -> EventBody:
        return _body(await operations.clone(work, access, source, title=body.title, now=now))

    scope = operations.scope_of_new(operations.details_of(source))
    made = await once.answer(EventBody, clone, scope=scope)
    set_entity_tag(response, made.version)
    return made


async def _moving(
    event_id: UUID, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> Callable[[str], Awaitable[EventBody]]:
    async def move(name: str) -> EventBody:
        return _shown(await operations.move(work, access, event_id, name, expected=expected, now=now), response)

    return move


#: Makes a move of the event in the path, in the version the caller has seen.
Moving = Annotated[Callable[[str], Awaitable[EventBody]], Depends(_moving)]
_MOVE_PROBLEMS = problem_statuses(404, 409, 412, 428)


@events.post("/events/{event_id}/plan", responses=_MOVE_PROBLEMS)
@guard(Permission("promoter.events.update", ScopeSource.OBJECT))
async def plan_event(move: Moving) -> EventBody:
    """Put a draft, or an event that was postponed, on hold."""
    return await move("plan")


@events.post("/events/{event_id}/confirm", responses=_MOVE_PROBLEMS)
@guard(Permission("promoter.events.update", ScopeSource.OBJECT))
async def confirm_event(move: Moving) -> EventBody:
    """Confirm an event on hold; it has a date, a place and a currency from now on."""
    return await move("confirm")


@events.post("/events/{event_id}/announce", responses=_MOVE_PROBLEMS)
@guard(Permission("promoter.events.update", ScopeSource.OBJECT))
async def announce_event(move: Moving) -> EventBody:
    """Make a confirmed event public."""
    return await move("announce")


@events.post("/events/{event_id}/put-on-sale", responses=_MOVE_PROBLEMS)
@guard(Permission("promoter.events.update", ScopeSource.OBJECT))
async def put_event_on_sale(move: Moving) -> EventBody:
    """Begin to sell an announced event."""
    return await move("put-on-sale")


@events.post("/events/{event_id}/begin-settlement", responses=_MOVE_PROBLEMS)
@guard(Permission("promoter.events.update", ScopeSource.OBJECT))
async def begin_event_settlement(move: Moving) -> EventBody:
    """End the sale; what was earned is being divided."""
    return await move("begin-settlement")


@events.post("/events/{event_id}/settle", responses=_MOVE_PROBLEMS)
@guard(Permission("promoter.events.update", ScopeSource.OBJECT))
async def settle_event(move: Moving) -> EventBody:
    """Close an event whose settlement is done."""
    return await move("settle")


@events.post("/events/{event_id}/postpone", responses=_MOVE_PROBLEMS)
@guard(Permission("promoter.events.update", ScopeSource.OBJECT))
async def postpone_event(move: Moving) -> EventBody:
    """Take an event off its date: it has none until it is given another. Its history tells which it was."""
    return await move("postpone")


@events.post("/events/{event_id}/cancel", responses=_MOVE_PROBLEMS)
@guard(Permission("promoter.events.cancel", ScopeSource.OBJECT))
async def cancel_event(move: Moving) -> EventBody:
    """Call an event off for good."""
    return await move("cancel")


def _shown(event: Event, response: Response) -> EventBody:
    set_entity_tag(response, event.version)
    return _body(event)


def _body(event: Event) -> EventBody:
    return EventBody.of(event, moves=MOVES.allowed(EventState(event.state)))
