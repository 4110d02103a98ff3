"""Events and artists, fenced by company, and what every module keeps beside its rows."""

import sqlalchemy as sa
from alembic import op

from chassis.audit import create_audit_entries, drop_audit_entries
from chassis.idempotency import create_idempotency_keys, drop_idempotency_keys
from infra.outbox.tables import (
    create_outbox,
    drop_outbox,
    extend_outbox_for_restores,
    narrow_outbox_from_restores,
)
from infra.postgres.companies import create_companies, drop_companies, note_companies_of
from infra.postgres.row_security import isolate_by_company

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATES = "draft hold confirmed announced on_sale in_settlement settled cancelled postponed"


def upgrade() -> None:
    create_outbox(op)
    extend_outbox_for_restores(op)
    create_companies(op)
    create_idempotency_keys(op)
    create_audit_entries(op)
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("business_unit_id", sa.Uuid()),
        sa.Column("starts_at", sa.DateTime(timezone=True)),
        sa.Column("ends_at", sa.DateTime(timezone=True)),
        sa.Column("time_zone", sa.Text()),
        sa.Column("space_id", sa.Uuid()),
        sa.Column("venue_text", sa.Text()),
        sa.Column("currency", sa.Text()),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            f"state in ({', '.join(repr(state) for state in _STATES.split())})", name="events_state_is_known"
        ),
        sa.CheckConstraint("version >= 1", name="events_version_is_positive"),
        sa.CheckConstraint("length(title) between 1 and 200", name="events_title_length"),
        sa.CheckConstraint("length(venue_text) between 1 and 200", name="events_venue_text_length"),
        sa.CheckConstraint("(starts_at is null) = (ends_at is null)", name="events_times_are_whole"),
        sa.CheckConstraint("starts_at < ends_at", name="events_ends_after_it_starts"),
        sa.CheckConstraint("starts_at is null or time_zone is not null", name="events_date_has_a_zone"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="events_currency_is_a_code"),
        sa.CheckConstraint(
            "state in ('draft', 'hold', 'postponed', 'cancelled') or"
            " (starts_at is not null and (space_id is not null or venue_text is not null) and currency is not null)",
            name="events_is_complete_once_confirmed",
        ),
    )
    op.create_index("events_company_id_id_index", "events", ["company_id", "id"])
    op.create_index("events_company_id_starts_at_index", "events", ["company_id", "starts_at"])
    op.create_table(
        "artists",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("stage_name", sa.Text(), nullable=False),
        sa.Column("genre", sa.Text()),
        sa.Column("country", sa.Text()),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("version >= 1", name="artists_version_is_positive"),
        sa.CheckConstraint("length(stage_name) between 1 and 200", name="artists_stage_name_length"),
        sa.CheckConstraint("length(genre) between 1 and 200", name="artists_genre_length"),
        sa.CheckConstraint("country ~ '^[A-Z]{2}$'", name="artists_country_is_a_code"),
    )
    op.create_index("artists_company_id_id_index", "artists", ["company_id", "id"])
    op.create_index("artists_company_id_stage_name_index", "artists", ["company_id", "stage_name"])
    for table in ("events", "artists"):
        isolate_by_company(op, table)
        note_companies_of(op, table)


def downgrade() -> None:
    op.drop_table("artists")
    op.drop_table("events")
    drop_audit_entries(op)
    drop_idempotency_keys(op)
    drop_companies(op)
    narrow_outbox_from_restores(op)
    drop_outbox(op)
