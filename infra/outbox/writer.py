"""Writes events into the outbox, through the caller's own transaction. Nothing here commits."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import and_, case, func, insert, null, or_, select, tuple_
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import HEADER_TYPE, Envelope, encode, envelop
from contracts.identifiers import CompanyId, UserId, new_id
from contracts.payload import Payload
from contracts.topics import Topic
from infra.outbox.tables import facts, publisher, states


class Lane(IntEnum):
    """What goes first. A state somebody waits for is interactive; what a job writes by the thousand is bulk."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(frozen=True)
class Revision:
    """A state as its readers know it."""

    topic: str
    key: str
    epoch: int
    version: int

    def __str__(self) -> str:
        """As in the header `Kisum-Revision`."""
        return f"{self.topic}:{self.key}:{self.epoch}:{self.version}"


def next_version(version: int, above: int | None) -> int:
    """The version a row is published again under: its own, or one above both it and another that the log has shown.

    The version of a row there is not is 0, and the first of one that is made is 1.
    """
    return max(version, 1) if above is None else max(version, above) + 1


@dataclass(frozen=True)
class State:
    """One of several states that are published together."""

    payload: Payload
    company_id: CompanyId
    version: int
    actor_user_id: UserId | None = None


async def publish_state(
    work: AsyncSession,
    topic: Topic,
    payload: Payload,
    *,
    company_id: CompanyId,
    version: int,
    occurred_at: datetime,
    actor_user_id: UserId | None = None,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
    lane: Lane = Lane.INTERACTIVE,
) -> Revision:
    """Have the current state of a key published when the transaction commits; it replaces one that is still pending.

    The caller holds the lock of the aggregate's row and passes the version it wrote there, one more than before. Of two
    states the newer stays, and the more urgent lane. The same version again changes nothing, but lets a row the log
    refused be tried again. Raises EventTooLargeError, and ValueError for a payload the topic does not carry.
    """
    event = envelop_for(
        topic,
        payload,
        epoch=await _epoch(work),
        company_id=company_id,
        version=version,
        occurred_at=occurred_at,
        actor_user_id=actor_user_id,
        correlation_id=correlation_id,
        causation_id=causation_id,
    )
    await work.execute(_UPSERT, state_row(topic, event, lane))
    return Revision(topic.name, topic.record_key(event).decode(), event.epoch, event.version)


async def publish_states(
    work: AsyncSession, topic: Topic, published: Iterable[State], *, occurred_at: datetime, lane: Lane
) -> None:
    """As `publish_state` of each, in their order, with as many round trips for all of them as for one."""
    epoch = await _epoch(work)
    rows = [
        state_row(
            topic,
            envelop_for(
                topic,
                state.payload,
                epoch=epoch,
                company_id=state.company_id,
                version=state.version,
                occurred_at=occurred_at,
                actor_user_id=state.actor_user_id,
            ),
            lane,
        )
        for state in published
    ]
    if rows:
        await work.execute(_UPSERT, rows)


async def publish_fact(
    work: AsyncSession,
    topic: Topic,
    payload: Payload,
    *,
    company_id: CompanyId,
    version: int,
    occurred_at: datetime,
    actor_user_id: UserId | None = None,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
) -> UUID:
    """Have a fact published when the transaction commits, after those written before it under the same key.

    Facts of one key keep their order if the caller holds a lock that its other writers take too. Returns the event's
    id. Raises EventTooLargeError, and ValueError for a payload the topic does not carry.
    """
    if topic.cleanup != "delete":
        raise ValueError(f"{topic.name} carries states, not facts")
    event = envelop_for(
        topic,
        payload,
        epoch=await _epoch(work),
        company_id=company_id,
        version=version,
        occurred_at=occurred_at,
        actor_user_id=actor_user_id,
        correlation_id=correlation_id,
        causation_id=causation_id,
    )
    await work.execute(insert(facts).values(**_record(topic, event)))
    return event.event_id


def envelop_for(
    topic: Topic,
    payload: Payload,
    *,
    epoch: int,
    company_id: CompanyId,
    version: int,
    occurred_at: datetime,
    actor_user_id: UserId | None = None,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
) -> Envelope[Payload]:
    """The event of a payload. Raises ValueError for one the topic does not carry."""
    if type(payload) not in topic.payloads:
        raise ValueError(f"{topic.name} does not carry {payload.event_type}")
    return envelop(
        payload,
        occurred_at=occurred_at,
        company_id=company_id,
        actor_user_id=actor_user_id,
        epoch=epoch,
        version=version,
        correlation_id=correlation_id or new_id(),
        causation_id=causation_id,
    )


def state_row(topic: Topic, event: Envelope[Payload], lane: Lane) -> dict[str, Any]:
    """The row of a pending state. Raises EventTooLargeError, and ValueError for a topic of facts."""
    if topic.cleanup != "compact":
        raise ValueError(f"{topic.name} carries facts, not states")
    return {**_record(topic, event), "epoch": event.epoch, "version": event.version, "lane": int(lane)}


def _upsert() -> Insert:
    row = upsert(states)
    written, pending = row.excluded, states.c
    replaces = or_(
        tuple_(written.epoch, written.version) > tuple_(pending.epoch, pending.version),
        and_(
            pending.refused_at.is_not(None),
            tuple_(written.epoch, written.version) == tuple_(pending.epoch, pending.version),
        ),
    )
    newer: dict[str, Any] = {
        name: case((replaces, written[name]), else_=pending[name])
        for name in ("value", "headers", "epoch", "version", "occurred_at")
    }
    cleared: dict[str, Any] = {
        name: case((replaces, null()), else_=pending[name]) for name in ("refused_at", "refusal")
    }
    return row.on_conflict_do_update(
        index_elements=[pending.topic, pending.key],
        set_={**newer, **cleared, "lane": func.least(pending.lane, written.lane)},
        where=or_(replaces, written.lane < pending.lane),
    )


_UPSERT: Final = _upsert()


async def _epoch(work: AsyncSession) -> int:
    epoch: int | None = await work.scalar(select(publisher.c.epoch))
    if epoch is None:
        raise RuntimeError("outbox_publisher is empty: its migration inserts the row")
    return epoch


def _record(topic: Topic, envelope: Envelope[Payload]) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "key": topic.record_key(envelope).decode(),
        "value": encode(envelope),
        "headers": {HEADER_TYPE: envelope.type},
        "occurred_at": envelope.occurred_at,
    }
