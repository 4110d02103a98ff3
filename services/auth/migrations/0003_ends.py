"""What members were given for a time is found by its end."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("granted_permissions", "delegations"):
        op.create_index(
            f"{table}_valid_until_index", table, ["valid_until"], postgresql_where="valid_until is not null"
        )


def downgrade() -> None:
    for table in ("granted_permissions", "delegations"):
        op.drop_index(f"{table}_valid_until_index", table)
