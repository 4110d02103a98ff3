from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.promoter.database import Base
from services.promoter.events.rules import EventState


class Event(Base):
    """Fenced by company. Never deleted: a state topic tells of it."""

    __tablename__ = "events"
    __table_args__ = (
        CheckConstraint(f"state in ({', '.join(repr(state.value) for state in EventState)})", name="state_is_known"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        CheckConstraint("length(title) between 1 and 200", name="title_length"),
        CheckConstraint("length(venue_text) between 1 and 200", name="venue_text_length"),
        CheckConstraint("(starts_at is null) = (ends_at is null)", name="times_are_whole"),
        CheckConstraint("starts_at < ends_at", name="ends_after_it_starts"),
        CheckConstraint("starts_at is null or time_zone is not null", name="date_has_a_zone"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_a_code"),
        CheckConstraint(
            "state in ('draft', 'hold', 'postponed', 'cancelled') or"
            " (starts_at is not null and (space_id is not null or venue_text is not null) and currency is not null)",
            name="is_complete_once_confirmed",
        ),
        Index(None, "company_id", "id"),
        Index(None, "company_id", "starts_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    business_unit_id: Mapped[UUID | None]
    #: The event is from here up to and without `ends_at`.
    starts_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ends_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    #: IANA.
    time_zone: Mapped[str | None] = mapped_column(Text)
    space_id: Mapped[UUID | None]
    venue_text: Mapped[str | None] = mapped_column(Text)
    currency: Mapped[str | None] = mapped_column(Text)
    #: One more with every write; the ETag, and the version of the published state.
    version: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
