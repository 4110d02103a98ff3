from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Date, DateTime

from contracts.money import Money
from services.finance.bills.rules import BillState
from services.finance.database import Base, OfAmount


class Bill(OfAmount, Base):
    """Fenced by company. Never deleted: what was put down in error is void. A clock tells whether it is overdue."""

    __tablename__ = "bills"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_is_positive"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_a_code"),
        CheckConstraint("length(description) between 1 and 500", name="description_length"),
        CheckConstraint("length(reference) between 1 and 100", name="reference_length"),
        CheckConstraint("due_on >= billed_on", name="due_after_it_is_billed"),
        CheckConstraint(f"state in ({', '.join(repr(state.value) for state in BillState)})", name="state_is_known"),
        CheckConstraint("paid_minor between 0 and amount_minor", name="paid_is_within_the_amount"),
        CheckConstraint("(state = 'paid') = (paid_minor = amount_minor)", name="paid_in_full"),
        CheckConstraint(
            "(state = 'part_paid') = (paid_minor > 0 and paid_minor < amount_minor)", name="part_paid_in_part"
        ),
        CheckConstraint("(approved_by is null) = (approved_at is null)", name="approval_is_whole"),
        CheckConstraint("state in ('open', 'void') or approved_by is not null", name="approved_by_somebody"),
        CheckConstraint("approved_by not in (created_by, changed_by)", name="approved_by_four_eyes"),
        CheckConstraint("(state = 'void') = (void_reason is not null)", name="void_for_a_reason"),
        CheckConstraint("length(void_reason) between 1 and 500", name="void_reason_length"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        # What a payment refers to, its company and its currency with it.
        UniqueConstraint("company_id", "id", "currency"),
        Index(None, "company_id", "billed_on", "id"),
        Index(None, "company_id", "due_on", "id"),
        Index(None, "company_id", "state", "id"),
        Index(None, "company_id", "business_unit_id", "id"),
        Index(None, "company_id", "event_id", "id"),
        Index(None, "company_id", "vendor_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    business_unit_id: Mapped[UUID | None]
    event_id: Mapped[UUID | None]
    #: Of vendors finance knows the ids only.
    vendor_id: Mapped[UUID | None]
    description: Mapped[str] = mapped_column(Text)
    #: The number its sender gave it.
    reference: Mapped[str | None] = mapped_column(Text)
    billed_on: Mapped[date] = mapped_column(Date)
    due_on: Mapped[date] = mapped_column(Date)
    state: Mapped[str] = mapped_column(Text)
    #: The sum of its payments.
    paid_minor: Mapped[int] = mapped_column(BigInteger)
    #: Who wrote it anew last, which is as if they had created it.
    changed_by: Mapped[UUID | None]
    approved_by: Mapped[UUID | None]
    approved_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    void_reason: Mapped[str | None] = mapped_column(Text)
    #: One more with every write; the ETag.
    version: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    @property
    def paid(self) -> Money:
        return Money(self.paid_minor, self.currency)


class BillPayment(OfAmount, Base):
    """Money that was paid for a bill. Written once, never changed. Fenced by company."""

    __tablename__ = "bill_payments"
    __table_args__ = (
        ForeignKeyConstraint(["company_id", "bill_id", "currency"], ["bills.company_id", "bills.id", "bills.currency"]),
        CheckConstraint("amount_minor > 0", name="amount_is_positive"),
        CheckConstraint("version = 1", name="version_is_the_first"),
        Index(None, "company_id", "bill_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    bill_id: Mapped[UUID]
    paid_on: Mapped[date] = mapped_column(Date)
    version: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
