"""What members were given, the permission catalog, what companies are entitled to, outbox and inbox."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from infra.inbox import create_inbox, drop_inbox
from infra.outbox.tables import create_outbox, drop_outbox

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SCOPES_CHECK = (
    "jsonb_typeof(scopes) = 'object'"
    ' and not jsonb_path_exists(scopes, \'strict $.* ? (@.type() != "array" && @.type() != "string")\')'
    ' and not jsonb_path_exists(scopes, \'strict $.* ? (@.type() == "string") ? (@ != "*")\')'
    ' and not jsonb_path_exists(scopes, \'strict $.* ? (@.type() == "array")[*] ? (@.type() != "string")\')'
)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=nullable, primary_key=key)


def _member(
    table: str, *, of: str = "memberships", columns: tuple[str, ...] = ("company_id", "user_id")
) -> tuple[Any, ...]:
    return (
        sa.Column("company_id", sa.Uuid(), primary_key=True),
        sa.Column("user_id", sa.Uuid(), primary_key=True),
        _text("module", key=True),
        sa.ForeignKeyConstraint(
            list(columns), [f"{of}.{column}" for column in columns], name=f"{table}_{'_'.join(columns)}_exists"
        ),
    )


def _granted(table: str, *, by_nobody: bool) -> tuple[Any, ...]:
    return (
        sa.Column(
            "granted_by",
            sa.Uuid(),
            sa.ForeignKey("users.id", name=f"{table}_granted_by_exists"),
            nullable=by_nobody,
        ),
        _moment("granted_at"),
    )


def _catalog_row(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["module", "key"], ["permissions.module", "permissions.key"], name=f"{table}_module_key_exists"
    )


def upgrade() -> None:
    create_outbox(op)
    create_inbox(op)
    # Rows older than publishing are published when the service starts; new ones are with the write that makes them.
    for table in ("memberships", "signing_keys"):
        op.add_column(table, sa.Column("published", sa.Boolean(), nullable=False, server_default=sa.false()))
        op.alter_column(table, "published", server_default=None)
    op.create_check_constraint(
        "memberships_superadmin_has_accepted", "memberships", "not superadmin or status in ('active', 'suspended')"
    )
    op.create_index(
        "memberships_unpublished_index", "memberships", ["company_id", "user_id"], postgresql_where="not published"
    )
    op.add_column("signing_keys", sa.Column("version", sa.BigInteger(), nullable=False, server_default="1"))
    op.alter_column("signing_keys", "version", server_default=None)
    op.create_check_constraint("signing_keys_version_is_positive", "signing_keys", "version >= 1")
    op.create_table(
        "token_generations",
        sa.Column(
            "user_id", sa.Uuid(), sa.ForeignKey("users.id", name="token_generations_user_id_exists"), primary_key=True
        ),
        sa.Column("generation", sa.Integer(), nullable=False),
        _moment("since"),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("generation >= 1", name="token_generations_generation_is_positive"),
        sa.CheckConstraint("version >= 1", name="token_generations_version_is_positive"),
    )
    op.create_table(
        "permissions",
        _text("module", key=True),
        _text("key", key=True),
        _text("label"),
        sa.Column("bit", sa.Integer(), nullable=False),
        sa.Column("scope_types", ARRAY(sa.Text()), nullable=False),
        _text("capability", nullable=True),
        _text("alias_of", nullable=True),
        _text("status"),
        sa.Column("administration", sa.Boolean(), nullable=False),
        sa.CheckConstraint("status in ('active', 'deprecated', 'removed')", name="permissions_status_is_known"),
        sa.CheckConstraint("alias_of is null or status <> 'active'", name="permissions_active_is_no_alias"),
        sa.CheckConstraint("alias_of <> key", name="permissions_alias_is_another"),
        sa.CheckConstraint("bit >= 0", name="permissions_bit_not_negative"),
        sa.CheckConstraint(
            r"key ~ '^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*){2,}$'", name="permissions_key_has_three_parts"
        ),
        sa.CheckConstraint("cardinality(scope_types) >= 1", name="permissions_is_bounded_by_scopes"),
        sa.UniqueConstraint("module", "bit", name="permissions_module_bit_unique"),
        sa.ForeignKeyConstraint(
            ["module", "alias_of"], ["permissions.module", "permissions.key"], name="permissions_module_alias_of_exists"
        ),
    )
    op.create_table(
        "published_modules",
        _text("module", key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", JSONB(), nullable=False),
        sa.CheckConstraint("version >= 1", name="published_modules_version_is_positive"),
        sa.CheckConstraint("jsonb_typeof(state) = 'object'", name="published_modules_state_is_an_object"),
    )
    op.create_table(
        "company_entitlements",
        sa.Column("company_id", sa.Uuid(), primary_key=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("known", sa.Boolean(), nullable=False),
        sa.CheckConstraint("epoch >= 1 and version >= 1", name="company_entitlements_revision_is_positive"),
    )
    op.create_table(
        "company_modules",
        sa.Column(
            "company_id",
            sa.Uuid(),
            sa.ForeignKey("company_entitlements.company_id", name="company_modules_company_id_exists"),
            primary_key=True,
        ),
        _text("module", key=True),
        _moment("valid_until", nullable=True),
    )
    op.create_table(
        "granted_modules",
        *_member("granted_modules"),
        sa.Column("scopes", JSONB(), nullable=False),
        *_granted("granted_modules", by_nobody=True),
        sa.CheckConstraint(_SCOPES_CHECK, name="granted_modules_scopes_are_ids_or_all"),
    )
    op.create_table(
        "granted_permissions",
        *_member("granted_permissions", of="granted_modules", columns=("company_id", "user_id", "module")),
        _text("key", key=True),
        _moment("valid_until", nullable=True),
        *_granted("granted_permissions", by_nobody=True),
        _catalog_row("granted_permissions"),
        sa.CheckConstraint("valid_until > granted_at", name="granted_permissions_ends_after_its_grant"),
    )
    op.create_index("granted_permissions_module_key_index", "granted_permissions", ["module", "key"])
    op.create_table(
        "top_ups",
        *_member("top_ups"),
        _text("key", key=True),
        _moment("given_at"),
        _catalog_row("top_ups"),
    )
    op.create_table(
        "delegations",
        *_member("delegations"),
        sa.Column("permissions", JSONB(), nullable=False),
        sa.Column("scopes", JSONB(), nullable=False),
        sa.Column("may_delegate", sa.Boolean(), nullable=False),
        _moment("valid_until", nullable=True),
        *_granted("delegations", by_nobody=False),
        sa.CheckConstraint(_SCOPES_CHECK, name="delegations_scopes_are_ids_or_all"),
        sa.CheckConstraint(
            "jsonb_typeof(permissions) = 'array' or permissions = '\"*\"'",
            name="delegations_permissions_are_keys_or_all",
        ),
        sa.CheckConstraint("valid_until > granted_at", name="delegations_ends_after_its_grant"),
        sa.CheckConstraint("granted_by <> user_id", name="delegations_is_not_of_oneself"),
    )


def downgrade() -> None:
    for table in (
        "delegations",
        "top_ups",
        "granted_permissions",
        "granted_modules",
        "company_modules",
        "company_entitlements",
        "published_modules",
        "permissions",
        "token_generations",
    ):
        op.drop_table(table)
    op.drop_column("signing_keys", "version")
    op.drop_column("signing_keys", "published")
    op.drop_index("memberships_unpublished_index", "memberships")
    op.drop_constraint("memberships_superadmin_has_accepted", "memberships")
    op.drop_column("memberships", "published")
    drop_inbox(op)
    drop_outbox(op)
