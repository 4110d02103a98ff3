from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.auth.database import Base


class Membership(Base):
    """A person in a company. Never deleted: a removed member who comes back continues row and version (design §3)."""

    __tablename__ = "memberships"
    __table_args__ = (
        CheckConstraint("status in ('invited', 'active', 'suspended', 'removed')", name="status_is_known"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        Index(None, "user_id"),
    )

    company_id: Mapped[UUID] = mapped_column(ForeignKey("companies.id"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    status: Mapped[str] = mapped_column(Text)
    superadmin: Mapped[bool]
    #: One more with every write of this row.
    version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
