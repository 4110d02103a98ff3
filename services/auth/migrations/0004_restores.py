"""The outbox knows the server it is on and the restores it went through; a version goes as far as an event's."""

import sqlalchemy as sa
from alembic import op

from infra.outbox.tables import extend_outbox_for_restores, narrow_outbox_from_restores

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("memberships", "version", type_=sa.BigInteger())
    extend_outbox_for_restores(op)


def downgrade() -> None:
    narrow_outbox_from_restores(op)
    op.alter_column("memberships", "version", type_=sa.Integer())
