"""What Core reacts to: every fact of Checkout is one operation, whatever its type."""

from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import Envelope
from contracts.topics import TOPICS
from infra.clock import utc_now
from infra.kafka.work import WorkConsumer
from services.entitlements.companies import operations


async def _record(work: AsyncSession, fact: Envelope[Any]) -> None:
    await operations.record_fact(work, fact, now=utc_now())


CONSUMERS: Final = tuple(
    WorkConsumer(name=name, topic=topic, handle=_record)
    for name, topic_name in (("purchases", "checkout.purchases.v1"), ("subscriptions", "checkout.subscriptions.v1"))
    for topic in TOPICS
    if topic.name == topic_name
)
