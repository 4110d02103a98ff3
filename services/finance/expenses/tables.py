from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Date, DateTime

from access.scopes import ScopeValue
from chassis.objects import Objects
from chassis.paging import Listing
from services.finance.approvals.rules import limit_needed
from services.finance.database import Base, OfAmount
from services.finance.expenses.rules import OWED_STATES, ExpenseDetails, ExpenseState, ExpenseUnknownError

_ADDED_UP: Final = ["event_id", "vendor_id", "agency_id", "currency", "amount_minor"]


def _written(states: Iterable[ExpenseState]) -> str:
    return ", ".join(repr(state.value) for state in states)


class Expense(OfAmount, Base):
    """Fenced by company. Never deleted: what was put down in error is void."""

    __tablename__ = "expenses"
    __table_args__ = (
        ForeignKeyConstraint(["company_id", "category_id"], ["categories.company_id", "categories.id"]),
        CheckConstraint("amount_minor > 0", name="amount_is_positive"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_a_code"),
        CheckConstraint("length(description) between 1 and 500", name="description_length"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        CheckConstraint(f"state in ({_written(ExpenseState)})", name="state_is_known"),
        CheckConstraint("(submitted_by is null) = (submitted_at is null)", name="submission_is_whole"),
        CheckConstraint("state in ('draft', 'void') or submitted_by is not null", name="submitted_by_somebody"),
        CheckConstraint("(decided_by is null) = (decided_at is null)", name="decision_is_whole"),
        CheckConstraint(
            "state in ('draft', 'submitted', 'void') or decided_by is not null", name="decided_by_somebody"
        ),
        CheckConstraint("decided_by not in (created_by, submitted_by)", name="decided_by_four_eyes"),
        CheckConstraint("(state = 'rejected') = (rejection_reason is not null)", name="rejected_for_a_reason"),
        CheckConstraint("length(rejection_reason) between 1 and 500", name="rejection_reason_length"),
        CheckConstraint("state not in ('scheduled', 'paid') or scheduled_for is not null", name="scheduled_for_a_day"),
        CheckConstraint("(state = 'paid') = (paid_on is not null)", name="paid_on_a_day"),
        CheckConstraint("(state = 'void') = (void_reason is not null)", name="void_for_a_reason"),
        CheckConstraint("length(void_reason) between 1 and 500", name="void_reason_length"),
        # What an attachment refers to, its company with it.
        UniqueConstraint("company_id", "id"),
        # The newest first, within one company and there by what a list is narrowed to most.
        # Days behind the order are compared in the index: a list of those paid a year ago looks up no row paid since.
        # What an index only includes is compared after its row was looked up.
        Index(None, "company_id", "id", "incurred_on", "scheduled_for", "paid_on"),
        Index(None, "company_id", "incurred_on", "id", "scheduled_for", "paid_on"),
        Index(None, "company_id", "state", "id"),
        Index(None, "company_id", "business_unit_id", "id"),
        Index(None, "company_id", "event_id", "id"),
        Index(None, "company_id", "category_id", "id"),
        Index(None, "company_id", "vendor_id", "id"),
        Index(None, "company_id", "agency_id", "id"),
        # Of who did little, or nothing of late, a list would be led past what everybody else did.
        Index(None, "company_id", "created_by", "id"),
        Index(None, "company_id", "submitted_by", "id", postgresql_where=text("submitted_by is not null")),
        Index(None, "company_id", "decided_by", "id", postgresql_where=text("decided_by is not null")),
        # Those in a state that is soon left are of a few days: whoever wants them by day is not led past all others.
        Index(None, "company_id", "state", "incurred_on", "id"),
        # All that a dashboard reads of an expense: to look thousands of rows up one by one is what takes its time.
        Index(
            "expenses_owed_index",
            "company_id",
            "business_unit_id",
            postgresql_include=[*_ADDED_UP, "scheduled_for", "incurred_on"],
            postgresql_where=text(f"state in ({_written(OWED_STATES)})"),
        ),
        Index(None, "company_id", "business_unit_id", "incurred_on", "id", postgresql_include=[*_ADDED_UP, "state"]),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    business_unit_id: Mapped[UUID | None]
    event_id: Mapped[UUID | None]
    category_id: Mapped[UUID | None]
    #: Of vendors and agencies finance knows the ids only.
    vendor_id: Mapped[UUID | None]
    agency_id: Mapped[UUID | None]
    description: Mapped[str] = mapped_column(Text)
    incurred_on: Mapped[date] = mapped_column(Date)
    #: Rows older than states were put down and nothing more.
    state: Mapped[str] = mapped_column(Text, server_default="draft")
    #: Who asked for the decision last; a new submission takes the decision before it away.
    submitted_by: Mapped[UUID | None]
    submitted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    decided_by: Mapped[UUID | None]
    decided_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    rejection_reason: Mapped[str | None] = mapped_column(Text)
    scheduled_for: Mapped[date | None] = mapped_column(Date)
    paid_on: Mapped[date | None] = mapped_column(Date)
    void_reason: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: One more with every write; the ETag. Rows older than versions are at their first.
    version: Mapped[int] = mapped_column(BigInteger, server_default="1")


def scope_of(expense: Expense | ExpenseDetails) -> Mapping[str, ScopeValue]:
    """By what an expense, and what hangs on it, is judged; of these a permission is bounded by the types its catalog
    row names.
    """
    return {
        "business_unit": expense.business_unit_id,
        "event": expense.event_id,
        "approval_limit": limit_needed(expense.amount),
    }


LISTING: Final = Listing(
    Expense,
    sorts={"created": Expense.id, "incurred_on": Expense.incurred_on},
    default="-created",
    scopes={"business_unit": Expense.business_unit_id, "event": Expense.event_id},
)
EXPENSES: Final = Objects(Expense, unknown=ExpenseUnknownError, scope_of=scope_of)
