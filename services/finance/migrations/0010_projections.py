"""Copies of the promoter's events and artists."""

import sqlalchemy as sa
from alembic import op

from chassis.projections import create_projection

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_projection(
        op,
        "projected_events",
        sa.Column("title", sa.Text()),
        sa.Column("business_unit_id", sa.Uuid()),
        sa.Column("starts_at", sa.DateTime(timezone=True)),
        sa.Column("ends_at", sa.DateTime(timezone=True)),
        sa.Column("time_zone", sa.Text()),
        sa.Column("currency", sa.Text()),
    )
    create_projection(op, "projected_artists", sa.Column("stage_name", sa.Text()))


def downgrade() -> None:
    op.drop_table("projected_artists")
    op.drop_table("projected_events")
