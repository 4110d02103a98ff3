from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Text, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.auth.database import Base


class CompanyEntitlement(Base):
    """Which state of entitlements.companies.v1 is applied. Core may know a company before Auth does: no foreign key."""

    __tablename__ = "company_entitlements"
    __table_args__ = (CheckConstraint("epoch >= 1 and version >= 1", name="revision_is_positive"),)

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    #: False where Core published that it does not know.
    known: Mapped[bool]


class CompanyModule(Base):
    """A module a company is entitled to; `valid_until` is exclusive, none is without end."""

    __tablename__ = "company_modules"

    company_id: Mapped[UUID] = mapped_column(ForeignKey("company_entitlements.company_id"), primary_key=True)
    module: Mapped[str] = mapped_column(Text, primary_key=True)
    valid_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


async def read_eligible(work: AsyncSession, company_id: UUID) -> Mapping[str, datetime | None] | None:
    """A company's modules with their ends, past ones included; None where Core does not know."""
    applied = await work.get(CompanyEntitlement, company_id, populate_existing=True)
    if applied is None:
        return {}
    if not applied.known:
        return None
    rows = await work.scalars(select(CompanyModule).where(CompanyModule.company_id == company_id))
    return {row.module: row.valid_until for row in rows}
