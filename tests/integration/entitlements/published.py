"""What Core handed to its outbox."""

from typing import Any

from sqlalchemy import select

from contracts.envelope import Envelope, decode
from contracts.topics import TOPICS
from infra.outbox.tables import states
from infra.postgres.database import Database


async def pending(database: Database, topic_name: str) -> dict[str, Envelope[Any]]:
    """The newest state per key."""
    topic = next(topic for topic in TOPICS if topic.name == topic_name)
    async with database.unit_of_work() as work:
        rows = await work.execute(select(states.c.key, states.c.value).where(states.c.topic == topic_name))
        return {key: decode(bytes(value), topic.payloads) for key, value in rows}
