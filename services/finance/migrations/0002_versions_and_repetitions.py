"""Expenses have a version and a history, and are put down once however often they are sent."""

import sqlalchemy as sa
from alembic import op

from chassis.audit import create_audit_entries, drop_audit_entries
from chassis.idempotency import create_idempotency_keys, drop_idempotency_keys
from infra.postgres.companies import create_companies, drop_companies, note_companies_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_companies(op)
    create_idempotency_keys(op)
    create_audit_entries(op)
    op.add_column("expenses", sa.Column("version", sa.BigInteger(), nullable=False, server_default="1"))
    op.create_check_constraint("expenses_version_is_positive", "expenses", "version >= 1")
    op.create_index("expenses_company_id_incurred_on_id_index", "expenses", ["company_id", "incurred_on", "id"])
    note_companies_of(op, "expenses")


def downgrade() -> None:
    op.execute("drop trigger note_company on expenses")
    op.drop_index("expenses_company_id_incurred_on_id_index")
    op.drop_column("expenses", "version")
    drop_audit_entries(op)
    drop_idempotency_keys(op)
    drop_companies(op)
