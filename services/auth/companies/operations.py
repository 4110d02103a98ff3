from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import UserId, new_id
from services.auth.companies.tables import Company
from services.auth.memberships.tables import Membership


async def found(work: AsyncSession, *, name: str, founder: UserId, now: datetime) -> Company:
    """Create a company. Its founder becomes its first TENANT_SUPERADMIN (domain §1.2)."""
    company = Company(id=new_id(), name=name, created_at=now)
    work.add(company)
    await work.flush()
    work.add(
        Membership(company_id=company.id, user_id=founder, status="active", superadmin=True, version=1, created_at=now)
    )
    return company


async def companies_of(work: AsyncSession, user_id: UserId) -> list[tuple[Company, Membership]]:
    """Where a person is a member, removed memberships excepted, by the company's name."""
    rows = await work.execute(
        select(Company, Membership)
        .join(Membership, Membership.company_id == Company.id)
        .where(Membership.user_id == user_id, Membership.status != "removed")
        .order_by(Company.name, Company.id)
    )
    return [(company, membership) for company, membership in rows]
