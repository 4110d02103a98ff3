"""An attachment is of an expense of its own company, and a copied event keeps what is read of it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_UNREAD = (
    sa.Column("business_unit_id", sa.Uuid()),
    sa.Column("starts_at", sa.DateTime(timezone=True)),
    sa.Column("ends_at", sa.DateTime(timezone=True)),
    sa.Column("time_zone", sa.Text()),
    sa.Column("currency", sa.Text()),
)


def upgrade() -> None:
    op.create_unique_constraint("expenses_company_id_id_unique", "expenses", ["company_id", "id"])
    op.drop_constraint("attachments_expense_id_fkey", "attachments")
    op.create_foreign_key(
        "attachments_company_id_expense_id_exists",
        "attachments",
        "expenses",
        ["company_id", "expense_id"],
        ["company_id", "id"],
    )
    for column in _UNREAD:
        op.drop_column("projected_events", column.name)


def downgrade() -> None:
    # Empty; a replay fills them.
    for column in _UNREAD:
        op.add_column("projected_events", column)
    op.drop_constraint("attachments_company_id_expense_id_exists", "attachments")
    op.create_foreign_key("attachments_expense_id_fkey", "attachments", "expenses", ["expense_id"], ["id"])
    op.drop_constraint("expenses_company_id_id_unique", "expenses")
