from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime, LargeBinary

from services.checkout.database import Base


class ProviderPayment(Base):
    """A payment a buyer was sent to."""

    __tablename__ = "provider_payments"
    __table_args__ = (
        CheckConstraint("status in ('pending', 'succeeded', 'failed')", name="status_is_known"),
        CheckConstraint("amount_minor >= 0", name="amount_is_not_negative"),
        CheckConstraint("(status = 'pending') = (settled_at is null)", name="settled_once_not_pending"),
    )

    reference: Mapped[str] = mapped_column(Text, primary_key=True)
    session_id: Mapped[UUID] = mapped_column(unique=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    settled_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)


class WebhookDelivery(Base):
    """A report to Checkout, sent until it is accepted. `next_attempt_at` also keeps two senders apart."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("attempts >= 0", name="attempts_not_negative"),
        Index(
            "webhook_deliveries_due_index",
            "next_attempt_at",
            postgresql_where="delivered_at is null and given_up_at is null",
        ),
    )

    event_id: Mapped[str] = mapped_column(Text, primary_key=True)
    payment_reference: Mapped[str] = mapped_column(ForeignKey("provider_payments.reference"))
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    next_attempt_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    attempts: Mapped[int] = mapped_column(default=0)
    delivered_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)
    given_up_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)
