"""Bills and what was paid for them, fenced by company."""

import sqlalchemy as sa
from alembic import op

from infra.postgres.row_security import isolate_by_company

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_LISTED_BY = ("billed_on", "due_on", "state", "business_unit_id", "event_id", "vendor_id")


def upgrade() -> None:
    op.create_table(
        "bills",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("business_unit_id", sa.Uuid()),
        sa.Column("event_id", sa.Uuid()),
        sa.Column("vendor_id", sa.Uuid()),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text()),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("billed_on", sa.Date(), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("paid_minor", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.Uuid()),
        sa.Column("approved_by", sa.Uuid()),
        sa.Column("approved_at", sa.DateTime(timezone=True)),
        sa.Column("void_reason", sa.Text()),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name="bills_amount_is_positive"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="bills_currency_is_a_code"),
        sa.CheckConstraint("length(description) between 1 and 500", name="bills_description_length"),
        sa.CheckConstraint("length(reference) between 1 and 100", name="bills_reference_length"),
        sa.CheckConstraint("due_on >= billed_on", name="bills_due_after_it_is_billed"),
        sa.CheckConstraint("state in ('open', 'approved', 'part_paid', 'paid', 'void')", name="bills_state_is_known"),
        sa.CheckConstraint("paid_minor between 0 and amount_minor", name="bills_paid_is_within_the_amount"),
        sa.CheckConstraint("(state = 'paid') = (paid_minor = amount_minor)", name="bills_paid_in_full"),
        sa.CheckConstraint(
            "(state = 'part_paid') = (paid_minor > 0 and paid_minor < amount_minor)", name="bills_part_paid_in_part"
        ),
        sa.CheckConstraint("(approved_by is null) = (approved_at is null)", name="bills_approval_is_whole"),
        sa.CheckConstraint("state in ('open', 'void') or approved_by is not null", name="bills_approved_by_somebody"),
        sa.CheckConstraint("approved_by not in (created_by, changed_by)", name="bills_approved_by_four_eyes"),
        sa.CheckConstraint("(state = 'void') = (void_reason is not null)", name="bills_void_for_a_reason"),
        sa.CheckConstraint("length(void_reason) between 1 and 500", name="bills_void_reason_length"),
        sa.CheckConstraint("version >= 1", name="bills_version_is_positive"),
        sa.UniqueConstraint("company_id", "id", "currency", name="bills_company_id_id_currency_unique"),
    )
    for column_name in _LISTED_BY:
        op.create_index(f"bills_company_id_{column_name}_id_index", "bills", ["company_id", column_name, "id"])
    op.create_table(
        "bill_payments",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("bill_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("paid_on", sa.Date(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["company_id", "bill_id", "currency"],
            ["bills.company_id", "bills.id", "bills.currency"],
            name="bill_payments_company_id_bill_id_currency_exists",
        ),
        sa.CheckConstraint("amount_minor > 0", name="bill_payments_amount_is_positive"),
        sa.CheckConstraint("version = 1", name="bill_payments_version_is_the_first"),
    )
    op.create_index("bill_payments_company_id_bill_id_id_index", "bill_payments", ["company_id", "bill_id", "id"])
    for table in ("bills", "bill_payments"):
        isolate_by_company(op, table)


def downgrade() -> None:
    op.drop_table("bill_payments")
    op.drop_table("bills")
