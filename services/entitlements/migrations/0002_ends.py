"""When something of what a company is entitled to ends next, so that its end is published when it happens."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("companies", sa.Column("next_end", sa.DateTime(timezone=True)))
    # What is over by now, and what ends next, is looked at when the service starts.
    op.execute("update companies set next_end = now() where state is not null")
    op.create_index("companies_next_end_index", "companies", ["next_end"])


def downgrade() -> None:
    op.drop_column("companies", "next_end")
