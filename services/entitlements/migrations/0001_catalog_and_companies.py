"""The catalog, what companies bought, what they are entitled to, and the outbox."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from infra.inbox import create_inbox, drop_inbox
from infra.outbox.tables import create_outbox, drop_outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _row_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("published_version", sa.BigInteger(), nullable=False),
    )


def _row_checks(table: str) -> tuple[sa.CheckConstraint, ...]:
    return (
        sa.CheckConstraint("status in ('active', 'retired')", name=f"{table}_status_is_known"),
        sa.CheckConstraint("version >= 1", name=f"{table}_version_is_positive"),
        sa.CheckConstraint("published_version between 0 and version", name=f"{table}_published_version_is_not_ahead"),
    )


def upgrade() -> None:
    op.create_table(
        "modules",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        *_row_columns(),
        sa.CheckConstraint("type in ('base', 'addon')", name="modules_type_is_known"),
        sa.UniqueConstraint("key", "type", name="modules_key_type_unique"),
        *_row_checks("modules"),
    )
    op.create_table(
        "compatible_bases",
        sa.Column("addon_key", sa.Text(), primary_key=True),
        sa.Column("base_key", sa.Text(), primary_key=True),
        sa.Column("addon_type", sa.Text(), nullable=False),
        sa.Column("base_type", sa.Text(), nullable=False),
        sa.CheckConstraint("addon_type = 'addon' and base_type = 'base'", name="compatible_bases_layers_addon_on_base"),
        sa.ForeignKeyConstraint(
            ["addon_key", "addon_type"],
            ["modules.key", "modules.type"],
            name="compatible_bases_addon_key_addon_type_exists",
        ),
        sa.ForeignKeyConstraint(
            ["base_key", "base_type"],
            ["modules.key", "modules.type"],
            name="compatible_bases_base_key_base_type_exists",
        ),
    )
    op.create_table(
        "packages",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("trial_days", sa.Integer(), nullable=False),
        *_row_columns(),
        sa.CheckConstraint("trial_days between 0 and 90", name="packages_trial_days_in_range"),
        *_row_checks("packages"),
    )
    op.create_table(
        "package_modules",
        sa.Column(
            "package_key",
            sa.Text(),
            sa.ForeignKey("packages.key", name="package_modules_package_key_exists"),
            primary_key=True,
        ),
        sa.Column("module_key", sa.Text(), primary_key=True),
        sa.Column("module_type", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["module_key", "module_type"],
            ["modules.key", "modules.type"],
            name="package_modules_module_key_module_type_exists",
        ),
    )
    op.create_index(
        "package_modules_one_base_index",
        "package_modules",
        ["package_key"],
        unique=True,
        postgresql_where=sa.text("module_type = 'base'"),
    )
    op.create_table(
        "addons",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False),
        *_row_columns(),
        sa.UniqueConstraint("capability", name="addons_capability_unique"),
        *_row_checks("addons"),
    )
    op.create_table(
        "addon_modules",
        sa.Column(
            "addon_key", sa.Text(), sa.ForeignKey("addons.key", name="addon_modules_addon_key_exists"), primary_key=True
        ),
        sa.Column(
            "module_key",
            sa.Text(),
            sa.ForeignKey("modules.key", name="addon_modules_module_key_exists"),
            primary_key=True,
        ),
    )
    op.create_table(
        "prices",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("package_key", sa.Text(), sa.ForeignKey("packages.key", name="prices_package_key_exists")),
        sa.Column("addon_key", sa.Text(), sa.ForeignKey("addons.key", name="prices_addon_key_exists")),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("interval", sa.Text(), nullable=False),
        sa.Column("placeholder", sa.Boolean(), nullable=False),
        *_row_columns(),
        sa.CheckConstraint("num_nonnulls(package_key, addon_key) = 1", name="prices_is_of_one_item"),
        sa.CheckConstraint("amount_minor >= 0", name="prices_amount_is_not_negative"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="prices_currency_is_iso_4217"),
        sa.CheckConstraint("interval in ('month', 'year')", name="prices_interval_is_known"),
        *_row_checks("prices"),
    )
    op.create_index(
        "prices_one_active_index",
        "prices",
        ["package_key", "addon_key", "currency", "interval"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
        postgresql_nulls_not_distinct=True,
    )
    op.create_table(
        "companies",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", JSONB()),
        sa.Column("suspended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("version >= 0", name="companies_version_is_not_negative"),
        sa.CheckConstraint("(version = 0) = (state is null)", name="companies_has_a_state_once_published"),
    )
    op.create_table(
        "purchase_facts",
        sa.Column("event_id", sa.Uuid(), primary_key=True),
        sa.Column(
            "company_id",
            sa.Uuid(),
            sa.ForeignKey("companies.id", name="purchase_facts_company_id_exists"),
            nullable=False,
        ),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("epoch >= 1 and version >= 1", name="purchase_facts_position_is_positive"),
    )
    op.create_index("purchase_facts_company_id_index", "purchase_facts", ["company_id"])
    create_outbox(op)
    create_inbox(op)


def downgrade() -> None:
    drop_inbox(op)
    drop_outbox(op)
    for table in (
        "purchase_facts",
        "companies",
        "prices",
        "addon_modules",
        "addons",
        "package_modules",
        "packages",
        "compatible_bases",
        "modules",
    ):
        op.drop_table(table)
