from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.auth.database import Base


class Company(Base):
    """A customer of the platform; `platform`, the reserved one, is what platform admins are members of."""

    __tablename__ = "companies"
    __table_args__ = (CheckConstraint("length(name) between 1 and 200", name="name_length"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
