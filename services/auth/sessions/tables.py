from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime, LargeBinary

from services.auth.database import Base


class Session(Base):
    """One sign-in. Never deleted: an ended session is a row with `ended_at`."""

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint("octet_length(refresh_hash) = 32", name="refresh_hash_is_sha256"),
        CheckConstraint("expires_at > created_at", name="expires_after_creation"),
        Index(None, "user_id"),
        Index(None, "refresh_hash", unique=True),
        Index(None, "previous_refresh_hash"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    refresh_hash: Mapped[bytes] = mapped_column(LargeBinary)
    previous_refresh_hash: Mapped[bytes | None] = mapped_column(LargeBinary, default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    refreshed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)


class TokenGeneration(Base):
    """Which tokens of a person are void, as readers are told. A row from the first session that was ended."""

    __tablename__ = "token_generations"
    __table_args__ = (
        CheckConstraint("generation >= 1", name="generation_is_positive"),
        CheckConstraint("version >= 1", name="version_is_positive"),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    #: Tokens are signed with it; those of an older one are void.
    generation: Mapped[int]
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: One more with every state that was published.
    version: Mapped[int] = mapped_column(BigInteger)
