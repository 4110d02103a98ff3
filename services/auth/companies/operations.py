from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.events.auth import MembershipStatus
from contracts.identifiers import CompanyId, UserId, new_id
from contracts.topics import TOPICS
from infra.outbox.writer import Revision, publish_state
from services.auth.companies.tables import Company
from services.auth.memberships.rules import Standing, grant_changed
from services.auth.memberships.tables import Membership

_MEMBERSHIPS: Final = next(topic for topic in TOPICS if topic.name == "auth.memberships.v1")


@dataclass(frozen=True)
class FoundedCompany:
    """A company, and the revision by which a reader knows that its founder has arrived."""

    company: Company
    revision: Revision


async def found(work: AsyncSession, *, name: str, founder: UserId, now: datetime) -> FoundedCompany:
    """Create a company. Its founder becomes its first TENANT_SUPERADMIN (domain §1.2)."""
    company = Company(id=new_id(), name=name, created_at=now)
    work.add(company)
    await work.flush()
    standing = Standing(MembershipStatus.ACTIVE, superadmin=True)
    membership = Membership(
        company_id=company.id,
        user_id=founder,
        status=standing.status.value,
        superadmin=standing.superadmin,
        version=1,
        created_at=now,
    )
    work.add(membership)
    revision = await publish_state(
        work,
        _MEMBERSHIPS,
        grant_changed(founder, standing),
        company_id=CompanyId(company.id),
        version=membership.version,
        occurred_at=now,
        actor_user_id=founder,
    )
    return FoundedCompany(company, revision)


async def companies_of(work: AsyncSession, user_id: UserId) -> list[tuple[Company, Membership]]:
    """Where a person is a member, removed memberships excepted, by the company's name."""
    rows = await work.execute(
        select(Company, Membership)
        .join(Membership, Membership.company_id == Company.id)
        .where(Membership.user_id == user_id, Membership.status != "removed")
        .order_by(Company.name, Company.id)
    )
    return [(company, membership) for company, membership in rows]
