from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.types import DateTime

from contracts.events.checkout import Item
from services.checkout.database import Base


class SessionLine(Base):
    """An item of a session, and what is due for it."""

    __tablename__ = "session_lines"
    __table_args__ = (
        CheckConstraint("kind in ('package', 'addon')", name="kind_is_known"),
        CheckConstraint("amount_minor >= 0", name="amount_is_not_negative"),
    )

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    amount_minor: Mapped[int] = mapped_column(BigInteger)

    @property
    def item(self) -> Item:
        return Item(kind="package" if self.kind == "package" else "addon", key=self.key)


class Session(Base):
    """Something a company is about to buy. A completed one is the purchase, and its id the purchase's."""

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint("status in ('open', 'completed', 'failed', 'refused')", name="status_is_known"),
        CheckConstraint("total_minor >= 0", name="total_is_not_negative"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_iso_4217"),
        CheckConstraint("expires_at > created_at", name="expires_after_creation"),
        CheckConstraint("(status = 'completed') = (subscription_id is not null)", name="completed_has_a_subscription"),
        CheckConstraint("(status = 'refused') = (refusal is not null)", name="refused_has_a_refusal"),
        CheckConstraint("(status = 'open') = (settled_at is null)", name="settled_once_not_open"),
        Index(None, "company_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID] = mapped_column(ForeignKey("customers.company_id"))
    opened_by: Mapped[UUID]
    status: Mapped[str] = mapped_column(Text)
    trial: Mapped[bool]
    total_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)
    #: The provider's id of the payment.
    payment_reference: Mapped[str] = mapped_column(Text, unique=True)
    pay_url: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    settled_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)
    subscription_id: Mapped[UUID | None] = mapped_column(ForeignKey("subscriptions.id"), default=None)
    #: Why a paid session could not be carried out, as a problem code.
    refusal: Mapped[str | None] = mapped_column(Text, default=None)
    lines: Mapped[list[SessionLine]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", order_by=SessionLine.position
    )
