from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Text, UniqueConstraint, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Date, DateTime

from contracts.identifiers import CompanyId
from services.finance.database import Base
from services.finance.periods.rules import PeriodClosedError, PeriodState, month_of, month_text

_MONTHS_PER_YEAR: Final = 12


class Period(Base):
    """A month that is closed, or was. One that nobody closed yet has no row. Fenced by company."""

    __tablename__ = "periods"
    __table_args__ = (
        CheckConstraint("state in ('open', 'closed')", name="state_is_known"),
        CheckConstraint("extract(day from month) = 1", name="month_is_its_first_day"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        UniqueConstraint("company_id", "month"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    month: Mapped[date] = mapped_column(Date)
    state: Mapped[str] = mapped_column(Text)
    #: One more with every write; the ETag.
    version: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


async def hold_open(work: AsyncSession, company_id: CompanyId, *days: date) -> None:
    """Have the months of these days open until the transaction ends. Raises PeriodClosedError.

    Called after the rows that are written were locked. The months are locked in their order: two who move something
    between the same two months while others wait to close them would else wait for each other.
    """
    months = sorted({month_of(day) for day in days})
    for month in months:
        await work.execute(select(func.pg_advisory_xact_lock_shared(*_lock(company_id, month))))
    closed = select(Period.month).where(
        Period.company_id == company_id, Period.month.in_(months), Period.state == PeriodState.CLOSED
    )
    first = await work.scalar(closed.order_by(Period.month).limit(1))
    if first is not None:
        raise PeriodClosedError(f"{month_text(first)} is closed; it would have to be reopened first.")


async def hold_month(work: AsyncSession, company_id: CompanyId, month: date) -> None:
    """Wait for whoever writes into a month, and keep others from it until the transaction ends: to close it."""
    await work.execute(select(func.pg_advisory_xact_lock(*_lock(company_id, month))))


def _lock(company_id: CompanyId, month: date) -> tuple[int, int]:
    """The month's advisory lock: two numbers of 31 bits. Companies that by chance share the first wait for each other
    now and then.
    """
    return int.from_bytes(company_id.bytes[-4:]) >> 1, month.year * _MONTHS_PER_YEAR + month.month
