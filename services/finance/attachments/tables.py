from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.finance.attachments.rules import MEDIA_TYPES
from services.finance.database import Base

_KNOWN: Final = ", ".join(f"'{each}'" for each in MEDIA_TYPES)


class Attachment(Base):
    """Fenced by company. Its id is that of its file; its row stays when the file is gone, and so does its history."""

    __tablename__ = "attachments"
    __table_args__ = (
        ForeignKeyConstraint(["company_id", "expense_id"], ["expenses.company_id", "expenses.id"]),
        CheckConstraint("length(file_name) between 1 and 200", name="file_name_length"),
        CheckConstraint(f"media_type in ({_KNOWN})", name="media_type_is_known"),
        CheckConstraint("size_bytes > 0", name="is_not_empty"),
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256_is_a_digest"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        Index(None, "company_id", "expense_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    expense_id: Mapped[UUID]
    #: What its sender called it; never where it lies.
    file_name: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(Text)
    removed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    version: Mapped[int] = mapped_column(BigInteger)
