from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Text, UniqueConstraint, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Date, DateTime

from contracts.identifiers import CompanyId
from services.finance.database import Base
from services.finance.rates.rules import Rates


class DayRates(Base):
    """The rates a company reckons with for what is of one day. Fenced by company.

    One row, because they are set, corrected and read together: its history tells what each of them was.
    """

    __tablename__ = "day_rates"
    __table_args__ = (
        CheckConstraint("base ~ '^[A-Z]{3}$'", name="base_is_a_code"),
        CheckConstraint("length(source) between 1 and 200", name="source_length"),
        CheckConstraint("jsonb_typeof(rates) = 'object'", name="rates_are_by_currency"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        UniqueConstraint("company_id", "day"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    day: Mapped[date] = mapped_column(Date)
    base: Mapped[str] = mapped_column(Text)
    #: Who published them.
    source: Mapped[str] = mapped_column(Text)
    #: Of each currency, as decimal text, how much of it one unit of the base is.
    rates: Mapped[dict[str, str]] = mapped_column(JSONB)
    #: One more with every write; the ETag.
    version: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    def known(self) -> Rates:
        """This row as its rules see it."""
        values = {quote: Decimal(value) for quote, value in self.rates.items()}
        return Rates(day=self.day, base=self.base, source=self.source, values=values)


async def read_rates(work: AsyncSession, company_id: CompanyId, days: Any) -> dict[date, Rates]:
    """A company's rates of these days, a collection or a query of them, as far as there are any."""
    rows = await work.scalars(select(DayRates).where(DayRates.company_id == company_id, DayRates.day.in_(days)))
    return {row.day: row.known() for row in rows}
