"""Expenses are submitted, decided, scheduled and paid, and have a category, a vendor and an agency."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS = (
    # What was put down before there were states was put down, and nothing more is known of it.
    sa.Column("state", sa.Text(), nullable=False, server_default="draft"),
    sa.Column("category_id", sa.Uuid()),
    sa.Column("vendor_id", sa.Uuid()),
    sa.Column("agency_id", sa.Uuid()),
    sa.Column("submitted_by", sa.Uuid()),
    sa.Column("submitted_at", sa.DateTime(timezone=True)),
    sa.Column("decided_by", sa.Uuid()),
    sa.Column("decided_at", sa.DateTime(timezone=True)),
    sa.Column("rejection_reason", sa.Text()),
    sa.Column("scheduled_for", sa.Date()),
    sa.Column("paid_on", sa.Date()),
    sa.Column("void_reason", sa.Text()),
)
_CHECKS = {
    "state_is_known": "state in ('draft', 'submitted', 'approved', 'rejected', 'scheduled', 'paid', 'void')",
    "submission_is_whole": "(submitted_by is null) = (submitted_at is null)",
    "submitted_by_somebody": "state in ('draft', 'void') or submitted_by is not null",
    "decision_is_whole": "(decided_by is null) = (decided_at is null)",
    "decided_by_somebody": "state in ('draft', 'submitted', 'void') or decided_by is not null",
    "decided_by_four_eyes": "decided_by not in (created_by, submitted_by)",
    "rejected_for_a_reason": "(state = 'rejected') = (rejection_reason is not null)",
    "rejection_reason_length": "length(rejection_reason) between 1 and 500",
    "scheduled_for_a_day": "state not in ('scheduled', 'paid') or scheduled_for is not null",
    "paid_on_a_day": "(state = 'paid') = (paid_on is not null)",
    "void_for_a_reason": "(state = 'void') = (void_reason is not null)",
    "void_reason_length": "length(void_reason) between 1 and 500",
}
_LISTED_BY = ("state", "event_id", "category_id", "vendor_id", "agency_id")


def upgrade() -> None:
    for column in _COLUMNS:
        op.add_column("expenses", column)
    for name, condition in _CHECKS.items():
        op.create_check_constraint(f"expenses_{name}", "expenses", condition)
    for column_name in _LISTED_BY:
        op.create_index(f"expenses_company_id_{column_name}_id_index", "expenses", ["company_id", column_name, "id"])


def downgrade() -> None:
    for column_name in _LISTED_BY:
        op.drop_index(f"expenses_company_id_{column_name}_id_index")
    for name in _CHECKS:
        op.drop_constraint(f"expenses_{name}", "expenses")
    for column in _COLUMNS:
        op.drop_column("expenses", column.name)
