"""An Alembic version that a service with an outbox would have, and the table of its aggregates."""

VERSION = """
from alembic import op
from infra.inbox import create_inbox, drop_inbox
from infra.outbox.tables import create_outbox, drop_outbox, extend_outbox_for_restores, narrow_outbox_from_restores
revision, down_revision = "0001", None
def upgrade():
    create_outbox(op)
    extend_outbox_for_restores(op)
    create_inbox(op)
    op.execute("create table members (key text primary key, version bigint not null, status text not null)")
def downgrade():
    op.execute("drop table members")
    drop_inbox(op)
    narrow_outbox_from_restores(op)
    drop_outbox(op)
"""
