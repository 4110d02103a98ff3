from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.entitlements.database import Base


class Company(Base):
    """A company somebody bought something for, or that was suspended. Its lock orders all that is derived for it."""

    __tablename__ = "companies"
    __table_args__ = (
        CheckConstraint("version >= 0", name="version_is_not_negative"),
        CheckConstraint("(version = 0) = (state is null)", name="has_a_state_once_published"),
        Index(None, "next_end"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: One more with every published state; 0 before the first.
    version: Mapped[int] = mapped_column(BigInteger, default=0)
    #: The state published last, as the event's data.
    state: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True), default=None)
    suspended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)
    #: When the state published last is to be derived anew, because something in it ends.
    next_end: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)


class PurchaseFact(Base):
    """A fact as Checkout told it. Kept for ever: the entitlement is derived from all of a company's."""

    __tablename__ = "purchase_facts"
    __table_args__ = (
        CheckConstraint("epoch >= 1 and version >= 1", name="position_is_positive"),
        Index(None, "company_id"),
    )

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID] = mapped_column(ForeignKey("companies.id"))
    type: Mapped[str] = mapped_column(Text)
    epoch: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
