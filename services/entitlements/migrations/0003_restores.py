"""The outbox knows the server it is on and the restores it went through; withdrawn keys of the catalog are kept."""

import sqlalchemy as sa
from alembic import op

from infra.outbox.tables import extend_outbox_for_restores, narrow_outbox_from_restores

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "withdrawn_catalog_keys",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("version >= 1", name="withdrawn_catalog_keys_version_is_positive"),
    )
    extend_outbox_for_restores(op)


def downgrade() -> None:
    narrow_outbox_from_restores(op)
    op.drop_table("withdrawn_catalog_keys")
