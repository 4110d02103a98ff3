"""What Auth is told and what it publishes, read from its outbox."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import Envelope, decode, envelop
from contracts.events.entitlements import BaseEntitlement, EntitlementChanged, EntitlementStatus, ModuleEntitlement
from contracts.identifiers import CompanyId, UserId, new_id
from contracts.topics import TOPICS
from infra.outbox.tables import states
from services.auth.companies.operations import found
from services.auth.users.tables import User

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)
MEMBERSHIPS = "auth.memberships.v1"


async def pending(work: AsyncSession, topic_name: str) -> dict[str, Envelope[Any]]:
    """The newest state of each key of a topic that waits to be sent."""
    (topic,) = (topic for topic in TOPICS if topic.name == topic_name)
    rows = await work.execute(select(states.c.key, states.c.value).where(states.c.topic == topic_name))
    return {key: decode(value, topic.payloads) for key, value in rows}


async def new_person(work: AsyncSession) -> UserId:
    user_id = new_id()
    email = f"{user_id}@example.com"
    work.add(User(id=user_id, email=email, email_key=email, display_name="Person", created_at=NOW))
    await work.flush()
    return UserId(user_id)


async def new_company(work: AsyncSession) -> tuple[CompanyId, UserId]:
    """A company and its founder."""
    founder = await new_person(work)
    founded = await found(work, name="Company", founder=founder, now=NOW)
    return CompanyId(founded.company.id), founder


def entitled(
    company_id: CompanyId,
    modules: Mapping[str, datetime | None] | tuple[str, ...],
    *,
    version: int = 1,
    epoch: int = 1,
    status: EntitlementStatus = EntitlementStatus.ACTIVE,
) -> Envelope[EntitlementChanged]:
    """What Core publishes of a company; the first module is its base."""
    ends = modules if isinstance(modules, Mapping) else dict.fromkeys(modules)
    base = next(iter(ends), None)
    return envelop(
        EntitlementChanged(
            status=status,
            base=None if base is None else BaseEntitlement(module=base, status=status, valid_until=ends[base]),
            modules=tuple(ModuleEntitlement(key=key, valid_until=end) for key, end in ends.items()),
            capabilities=(),
        ),
        occurred_at=NOW,
        company_id=company_id,
        actor_user_id=None,
        epoch=epoch,
        version=version,
        correlation_id=new_id(),
    )
