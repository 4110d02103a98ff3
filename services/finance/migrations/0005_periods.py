"""A month of a company's books is closed and reopened."""

import sqlalchemy as sa
from alembic import op

from infra.postgres.row_security import isolate_by_company

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "periods",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state in ('open', 'closed')", name="periods_state_is_known"),
        sa.CheckConstraint("extract(day from month) = 1", name="periods_month_is_its_first_day"),
        sa.CheckConstraint("version >= 1", name="periods_version_is_positive"),
        sa.UniqueConstraint("company_id", "month", name="periods_company_id_month_unique"),
    )
    isolate_by_company(op, "periods")


def downgrade() -> None:
    op.drop_table("periods")
