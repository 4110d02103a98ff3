"""The resolver keeps its state in its access cache; its database begins empty."""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The database begins empty."""


def downgrade() -> None:
    """There is nothing to undo."""
