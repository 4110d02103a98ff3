from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Date, DateTime

from services.finance.database import Base, OfAmount
from services.finance.income.rules import IncomeKind


class Income(OfAmount, Base):
    """Fenced by company. Never deleted: what was put down in error is void."""

    __tablename__ = "income"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_is_positive"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_a_code"),
        CheckConstraint("length(description) between 1 and 500", name="description_length"),
        CheckConstraint(f"kind in ({', '.join(repr(kind.value) for kind in IncomeKind)})", name="kind_is_known"),
        CheckConstraint("state in ('recorded', 'void')", name="state_is_known"),
        CheckConstraint("(state = 'void') = (void_reason is not null)", name="void_for_a_reason"),
        CheckConstraint("length(void_reason) between 1 and 500", name="void_reason_length"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        Index(None, "company_id", "id"),
        Index(None, "company_id", "received_on", "id"),
        Index(None, "company_id", "business_unit_id", "id"),
        Index(None, "company_id", "event_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    business_unit_id: Mapped[UUID | None]
    event_id: Mapped[UUID | None]
    kind: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    received_on: Mapped[date] = mapped_column(Date)
    state: Mapped[str] = mapped_column(Text)
    void_reason: Mapped[str | None] = mapped_column(Text)
    #: One more with every write; the ETag.
    version: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
