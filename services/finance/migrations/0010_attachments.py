"""Files attached to expenses, and the names of files that no row tells of."""

import sqlalchemy as sa
from alembic import op

from chassis.kept_files import create_unclaimed_files, drop_unclaimed_files
from infra.postgres.row_security import isolate_by_company

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_MEDIA_TYPES = "'application/pdf', 'image/jpeg', 'image/png', 'text/csv', 'text/plain'"


def upgrade() -> None:
    create_unclaimed_files(op)
    op.create_table(
        "attachments",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("expense_id", sa.Uuid(), sa.ForeignKey("expenses.id"), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True)),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("length(file_name) between 1 and 200", name="attachments_file_name_length"),
        sa.CheckConstraint(f"media_type in ({_MEDIA_TYPES})", name="attachments_media_type_is_known"),
        sa.CheckConstraint("size_bytes > 0", name="attachments_is_not_empty"),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="attachments_sha256_is_a_digest"),
        sa.CheckConstraint("version >= 1", name="attachments_version_is_positive"),
    )
    op.create_index("attachments_company_id_expense_id_id_index", "attachments", ["company_id", "expense_id", "id"])
    isolate_by_company(op, "attachments")


def downgrade() -> None:
    op.drop_table("attachments")
    drop_unclaimed_files(op)
