"""What Auth reacts to: what a company is entitled to."""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import Envelope
from contracts.events.entitlements import EntitlementChanged
from contracts.identifiers import CompanyId
from contracts.topics import TOPICS
from infra.clock import utc_now
from infra.kafka.work import WorkConsumer
from infra.outbox.writer import Lane
from services.auth.memberships.operations import top_up_company
from services.auth.projections.operations import apply_entitlement


async def take_entitlement(work: AsyncSession, envelope: Envelope[EntitlementChanged]) -> None:
    """Know what the company may be granted, and give its superadmins what is new to them."""
    if await apply_entitlement(work, envelope):
        await top_up_company(
            work,
            CompanyId(envelope.company_id),
            now=utc_now(),
            correlation_id=envelope.correlation_id,
            causation_id=envelope.event_id,
            lane=Lane.INTERACTIVE,
        )


CONSUMERS: Final = tuple(
    WorkConsumer(name="entitlements", topic=topic, handle=take_entitlement)
    for topic in TOPICS
    if topic.name == "entitlements.companies.v1"
)
