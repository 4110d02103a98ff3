"""People, companies, memberships, sessions and signing keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("email_key", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("email_key", name="users_email_key_unique"),
        sa.CheckConstraint("length(display_name) between 1 and 200", name="users_display_name_length"),
    )
    op.create_table(
        "credentials",
        sa.Column("user_id", sa.Uuid(), sa.ForeignKey("users.id", name="credentials_user_id_exists"), primary_key=True),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("failed_attempts", sa.Integer(), nullable=False),
        sa.Column("last_failed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("failed_attempts >= 0", name="credentials_failed_attempts_not_negative"),
    )
    op.create_table(
        "companies",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("length(name) between 1 and 200", name="companies_name_length"),
    )
    op.create_table(
        "memberships",
        sa.Column(
            "company_id",
            sa.Uuid(),
            sa.ForeignKey("companies.id", name="memberships_company_id_exists"),
            primary_key=True,
        ),
        sa.Column("user_id", sa.Uuid(), sa.ForeignKey("users.id", name="memberships_user_id_exists"), primary_key=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("superadmin", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status in ('invited', 'active', 'suspended', 'removed')", name="memberships_status_is_known"
        ),
        sa.CheckConstraint("version >= 1", name="memberships_version_is_positive"),
    )
    op.create_index("memberships_user_id_index", "memberships", ["user_id"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("user_id", sa.Uuid(), sa.ForeignKey("users.id", name="sessions_user_id_exists"), nullable=False),
        sa.Column("refresh_hash", sa.LargeBinary(), nullable=False),
        sa.Column("previous_refresh_hash", sa.LargeBinary()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("octet_length(refresh_hash) = 32", name="sessions_refresh_hash_is_sha256"),
        sa.CheckConstraint("expires_at > created_at", name="sessions_expires_after_creation"),
    )
    op.create_index("sessions_user_id_index", "sessions", ["user_id"])
    op.create_index("sessions_refresh_hash_index", "sessions", ["refresh_hash"], unique=True)
    op.create_index("sessions_previous_refresh_hash_index", "sessions", ["previous_refresh_hash"])
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.Text(), primary_key=True),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("private_key_encrypted", sa.LargeBinary(), nullable=False),
        sa.Column("root_signature", sa.LargeBinary(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(public_key) = 32", name="signing_keys_public_key_is_ed25519"),
        sa.CheckConstraint("octet_length(root_signature) = 64", name="signing_keys_root_signature_is_ed25519"),
        sa.CheckConstraint("not_after > not_before", name="signing_keys_period_is_not_empty"),
    )


def downgrade() -> None:
    for table in ("signing_keys", "sessions", "memberships", "companies", "credentials", "users"):
        op.drop_table(table)
