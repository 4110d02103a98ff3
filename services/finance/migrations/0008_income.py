"""Income, fenced by company."""

import sqlalchemy as sa
from alembic import op

from infra.postgres.row_security import isolate_by_company

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_LISTED_BY = ("received_on", "business_unit_id", "event_id")


def upgrade() -> None:
    op.create_table(
        "income",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("business_unit_id", sa.Uuid()),
        sa.Column("event_id", sa.Uuid()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("received_on", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("void_reason", sa.Text()),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name="income_amount_is_positive"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="income_currency_is_a_code"),
        sa.CheckConstraint("length(description) between 1 and 500", name="income_description_length"),
        sa.CheckConstraint(
            "kind in ('tickets', 'sponsorship', 'merchandise', 'food_and_drink', 'grant', 'refund', 'other')",
            name="income_kind_is_known",
        ),
        sa.CheckConstraint("state in ('recorded', 'void')", name="income_state_is_known"),
        sa.CheckConstraint("(state = 'void') = (void_reason is not null)", name="income_void_for_a_reason"),
        sa.CheckConstraint("length(void_reason) between 1 and 500", name="income_void_reason_length"),
        sa.CheckConstraint("version >= 1", name="income_version_is_positive"),
    )
    op.create_index("income_company_id_id_index", "income", ["company_id", "id"])
    for column_name in _LISTED_BY:
        op.create_index(f"income_company_id_{column_name}_id_index", "income", ["company_id", column_name, "id"])
    isolate_by_company(op, "income")


def downgrade() -> None:
    op.drop_table("income")
