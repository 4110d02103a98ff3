"""The owner's heartbeat (design §4): once a second, that all it had committed by a time lies below known offsets."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from contracts.envelope import encode, envelop, headers
from contracts.events.heartbeat import Heartbeat, Position
from contracts.identifiers import PLATFORM_COMPANY_ID, new_id
from contracts.topics import Topic
from infra.outbox.store import Progress, Publisher, Row

INTERVAL_SECONDS: Final = 1.0
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


def is_heartbeat(topic: Topic) -> bool:
    """Whether the topic carries heartbeats, which go past the outbox."""
    return any(issubclass(payload, Heartbeat) for payload in topic.payloads)


def heartbeat_row(
    topic: Topic, *, as_of: datetime, publisher: Publisher, progress: Iterable[Progress], now: datetime
) -> Row:
    """The record that says: what was committed by `as_of`, interactive, is below these partitions' next offsets.

    Its version is `as_of` in microseconds, so that heartbeats of one epoch are ordered without a counter to store.
    """
    payload = topic.payloads[0]
    if not issubclass(payload, Heartbeat):
        raise TypeError(f"{topic.name} carries no heartbeats")
    as_of = as_of.astimezone(UTC)
    envelope = envelop(
        payload(
            as_of=as_of,
            publish_counter=publisher.publish_counter,
            epoch_complete=publisher.epoch_complete,
            positions=tuple(
                Position(
                    topic=known.topic,
                    topic_id=known.topic_id,
                    partition=known.partition,
                    next_offset=known.acknowledged_offset,
                )
                for known in progress
            ),
        ),
        occurred_at=now,
        company_id=PLATFORM_COMPANY_ID,
        actor_user_id=None,
        epoch=publisher.epoch,
        version=(as_of - _BEGINNING) // timedelta(microseconds=1),
        correlation_id=new_id(),
    )
    return Row(
        topic=topic.name,
        key=topic.record_key(envelope).decode(),
        value=encode(envelope),
        headers=tuple(headers(envelope, None)),
    )
