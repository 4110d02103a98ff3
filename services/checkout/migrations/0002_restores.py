"""The outbox knows the server it is on and the restores it went through."""

from alembic import op

from infra.outbox.tables import extend_outbox_for_restores, narrow_outbox_from_restores

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    extend_outbox_for_restores(op)


def downgrade() -> None:
    narrow_outbox_from_restores(op)
