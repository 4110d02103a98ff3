"""The exchange rates of each day, fenced by company."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from infra.postgres.row_security import isolate_by_company

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "day_rates",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("rates", JSONB(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("base ~ '^[A-Z]{3}$'", name="day_rates_base_is_a_code"),
        sa.CheckConstraint("length(source) between 1 and 200", name="day_rates_source_length"),
        sa.CheckConstraint("jsonb_typeof(rates) = 'object'", name="day_rates_rates_are_by_currency"),
        sa.CheckConstraint("version >= 1", name="day_rates_version_is_positive"),
        sa.UniqueConstraint("company_id", "day", name="day_rates_company_id_day_unique"),
    )
    isolate_by_company(op, "day_rates")


def downgrade() -> None:
    op.drop_table("day_rates")
