"""Expenses, fenced by company."""

import sqlalchemy as sa
from alembic import op

from infra.postgres.row_security import isolate_by_company

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "expenses",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("business_unit_id", sa.Uuid()),
        sa.Column("event_id", sa.Uuid()),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("incurred_on", sa.Date(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name="expenses_amount_is_positive"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="expenses_currency_is_a_code"),
        sa.CheckConstraint("length(description) between 1 and 500", name="expenses_description_length"),
    )
    op.create_index("expenses_company_id_id_index", "expenses", ["company_id", "id"])
    op.create_index(
        "expenses_company_id_business_unit_id_id_index", "expenses", ["company_id", "business_unit_id", "id"]
    )
    isolate_by_company(op, "expenses")


def downgrade() -> None:
    op.drop_table("expenses")
