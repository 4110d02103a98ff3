from datetime import datetime

from sqlalchemy import CheckConstraint, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.checkout.database import Base


class ProviderEvent(Base):
    """An event of a provider that was carried out or found to change nothing; the same id is not looked at again."""

    __tablename__ = "provider_events"
    __table_args__ = (CheckConstraint("outcome in ('processed', 'ignored')", name="outcome_is_known"),)

    provider: Mapped[str] = mapped_column(Text, primary_key=True)
    event_id: Mapped[str] = mapped_column(Text, primary_key=True)
    type: Mapped[str] = mapped_column(Text)
    #: The provider's time.
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    outcome: Mapped[str] = mapped_column(Text)
