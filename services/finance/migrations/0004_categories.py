"""A company has categories of its own, and an expense is of one of them or of none."""

import sqlalchemy as sa
from alembic import op

from infra.postgres.row_security import isolate_by_company

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "categories",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state in ('active', 'retired')", name="categories_state_is_known"),
        sa.CheckConstraint("length(name) between 1 and 100", name="categories_name_length"),
        sa.CheckConstraint("version >= 1", name="categories_version_is_positive"),
        sa.UniqueConstraint("company_id", "id", name="categories_company_id_id_unique"),
    )
    op.create_index(
        "categories_one_of_a_name_index",
        "categories",
        ["company_id", "name"],
        unique=True,
        postgresql_where="state = 'active'",
    )
    isolate_by_company(op, "categories")
    op.create_foreign_key(
        "expenses_company_id_category_id_exists",
        "expenses",
        "categories",
        ["company_id", "category_id"],
        ["company_id", "id"],
    )


def downgrade() -> None:
    op.drop_constraint("expenses_company_id_category_id_exists", "expenses")
    op.drop_table("categories")
