from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.promoter.database import Base


class Artist(Base):
    """Fenced by company. Never deleted: a state topic tells of it."""

    __tablename__ = "artists"
    __table_args__ = (
        CheckConstraint("version >= 1", name="version_is_positive"),
        CheckConstraint("length(stage_name) between 1 and 200", name="stage_name_length"),
        CheckConstraint("length(genre) between 1 and 200", name="genre_length"),
        CheckConstraint("country ~ '^[A-Z]{2}$'", name="country_is_a_code"),
        Index(None, "company_id", "id"),
        Index(None, "company_id", "stage_name"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    stage_name: Mapped[str] = mapped_column(Text)
    genre: Mapped[str | None] = mapped_column(Text)
    country: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
