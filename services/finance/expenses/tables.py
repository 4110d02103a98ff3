from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Date, DateTime

from services.finance.database import Base


class Expense(Base):
    """Fenced by company."""

    __tablename__ = "expenses"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_is_positive"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_a_code"),
        CheckConstraint("length(description) between 1 and 500", name="description_length"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        # The newest first, within one company and there within business units.
        Index(None, "company_id", "id"),
        Index(None, "company_id", "incurred_on", "id"),
        Index(None, "company_id", "business_unit_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    business_unit_id: Mapped[UUID | None]
    event_id: Mapped[UUID | None]
    description: Mapped[str] = mapped_column(Text)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)
    incurred_on: Mapped[date] = mapped_column(Date)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: One more with every write; the ETag. Rows older than versions are at their first.
    version: Mapped[int] = mapped_column(BigInteger, server_default="1")
