"""Sessions, subscriptions, trials, provider events, the offline provider, the catalog's copy, outbox and inbox."""

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


def _instant(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.execute("create extension if not exists btree_gist")
    op.create_table(
        "customers",
        sa.Column("company_id", sa.Uuid(), primary_key=True),
        _instant("created_at"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column(
            "company_id",
            sa.Uuid(),
            sa.ForeignKey("customers.company_id", name="subscriptions_company_id_exists"),
            nullable=False,
        ),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("base_module", sa.Text()),
        _instant("started_at"),
        _instant("anchor_at", nullable=True),
        _instant("period_start"),
        _instant("period_end"),
        _instant("ends_at"),
        sa.Column("cancels_at_period_end", sa.Boolean(), nullable=False),
        _instant("effective_at"),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status in ('trialing', 'active', 'canceled')", name="subscriptions_status_is_known"),
        sa.CheckConstraint("status <> 'trialing' or anchor_at is null", name="subscriptions_trial_has_no_anchor"),
        sa.CheckConstraint("status <> 'active' or anchor_at is not null", name="subscriptions_paid_has_an_anchor"),
        sa.CheckConstraint("ends_at >= started_at", name="subscriptions_ends_after_its_start"),
        sa.CheckConstraint("period_end > period_start", name="subscriptions_period_is_not_empty"),
        sa.CheckConstraint("ends_at <= period_end", name="subscriptions_ends_with_its_period"),
        sa.CheckConstraint("version >= 1", name="subscriptions_version_is_positive"),
    )
    op.execute(
        "alter table subscriptions add constraint subscriptions_one_base_at_a_time exclude using gist"
        " (company_id with =, tstzrange(started_at, ends_at) with &&)"
        " where (base_module is not null and status <> 'canceled')"
    )
    op.create_index("subscriptions_company_id_index", "subscriptions", ["company_id"])
    op.create_index(
        "subscriptions_running_index", "subscriptions", ["ends_at"], postgresql_where=sa.text("status <> 'canceled'")
    )
    op.create_table(
        "subscription_items",
        sa.Column(
            "subscription_id",
            sa.Uuid(),
            sa.ForeignKey("subscriptions.id", name="subscription_items_subscription_id_exists"),
            primary_key=True,
        ),
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.CheckConstraint("kind in ('package', 'addon')", name="subscription_items_kind_is_known"),
    )
    op.create_table(
        "trials",
        sa.Column(
            "company_id",
            sa.Uuid(),
            sa.ForeignKey("customers.company_id", name="trials_company_id_exists"),
            primary_key=True,
        ),
        sa.Column("package_key", sa.Text(), primary_key=True),
        sa.Column(
            "subscription_id",
            sa.Uuid(),
            sa.ForeignKey("subscriptions.id", name="trials_subscription_id_exists"),
            nullable=False,
        ),
        _instant("started_at"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column(
            "company_id",
            sa.Uuid(),
            sa.ForeignKey("customers.company_id", name="sessions_company_id_exists"),
            nullable=False,
        ),
        sa.Column("opened_by", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("trial", sa.Boolean(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("payment_reference", sa.Text(), nullable=False),
        sa.Column("pay_url", sa.Text(), nullable=False),
        _instant("created_at"),
        _instant("expires_at"),
        _instant("settled_at", nullable=True),
        sa.Column(
            "subscription_id", sa.Uuid(), sa.ForeignKey("subscriptions.id", name="sessions_subscription_id_exists")
        ),
        sa.Column("refusal", sa.Text()),
        sa.UniqueConstraint("payment_reference", name="sessions_payment_reference_unique"),
        sa.CheckConstraint("status in ('open', 'completed', 'failed', 'refused')", name="sessions_status_is_known"),
        sa.CheckConstraint("total_minor >= 0", name="sessions_total_is_not_negative"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="sessions_currency_is_iso_4217"),
        sa.CheckConstraint("expires_at > created_at", name="sessions_expires_after_creation"),
        sa.CheckConstraint(
            "(status = 'completed') = (subscription_id is not null)", name="sessions_completed_has_a_subscription"
        ),
        sa.CheckConstraint("(status = 'refused') = (refusal is not null)", name="sessions_refused_has_a_refusal"),
        sa.CheckConstraint("(status = 'open') = (settled_at is null)", name="sessions_settled_once_not_open"),
    )
    op.create_index("sessions_company_id_index", "sessions", ["company_id"])
    op.create_table(
        "session_lines",
        sa.Column(
            "session_id",
            sa.Uuid(),
            sa.ForeignKey("sessions.id", name="session_lines_session_id_exists"),
            primary_key=True,
        ),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind in ('package', 'addon')", name="session_lines_kind_is_known"),
        sa.CheckConstraint("amount_minor >= 0", name="session_lines_amount_is_not_negative"),
    )
    op.create_table(
        "provider_events",
        sa.Column("provider", sa.Text(), primary_key=True),
        sa.Column("event_id", sa.Text(), primary_key=True),
        sa.Column("type", sa.Text(), nullable=False),
        _instant("created_at"),
        _instant("received_at"),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.CheckConstraint("outcome in ('processed', 'ignored')", name="provider_events_outcome_is_known"),
    )
    op.create_table(
        "provider_payments",
        sa.Column("reference", sa.Text(), primary_key=True),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        _instant("created_at"),
        _instant("expires_at"),
        _instant("settled_at", nullable=True),
        sa.UniqueConstraint("session_id", name="provider_payments_session_id_unique"),
        sa.CheckConstraint("status in ('pending', 'succeeded', 'failed')", name="provider_payments_status_is_known"),
        sa.CheckConstraint("amount_minor >= 0", name="provider_payments_amount_is_not_negative"),
        sa.CheckConstraint(
            "(status = 'pending') = (settled_at is null)", name="provider_payments_settled_once_not_pending"
        ),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", sa.Text(), primary_key=True),
        sa.Column(
            "payment_reference",
            sa.Text(),
            sa.ForeignKey("provider_payments.reference", name="webhook_deliveries_payment_reference_exists"),
            nullable=False,
        ),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        _instant("created_at"),
        _instant("next_attempt_at"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _instant("delivered_at", nullable=True),
        _instant("given_up_at", nullable=True),
        sa.CheckConstraint("attempts >= 0", name="webhook_deliveries_attempts_not_negative"),
    )
    op.create_index(
        "webhook_deliveries_due_index",
        "webhook_deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("delivered_at is null and given_up_at is null"),
    )
    op.create_table(
        "catalog_rows",
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        sa.CheckConstraint("kind in ('module', 'package', 'addon', 'price')", name="catalog_rows_kind_is_known"),
        sa.CheckConstraint("epoch >= 1 and version >= 1", name="catalog_rows_revision_is_positive"),
    )
    create_outbox(op)
    create_inbox(op)


def downgrade() -> None:
    drop_inbox(op)
    drop_outbox(op)
    for table in (
        "catalog_rows",
        "webhook_deliveries",
        "provider_payments",
        "provider_events",
        "session_lines",
        "sessions",
        "trials",
        "subscription_items",
        "subscriptions",
        "customers",
    ):
        op.drop_table(table)
    op.execute("drop extension btree_gist")
