"""What was spent, summed up by month as it is written; indexes of all a dashboard reads, and of states by day."""

import sqlalchemy as sa
from alembic import op

from infra.postgres.row_security import isolate_by_company

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ADDED_UP = ["event_id", "vendor_id", "agency_id", "currency", "amount_minor"]
_SUM_UP = """
    insert into spent_sums (company_id, party, party_id, month, currency, amount_minor, is_folded)
    select company_id, party, party_id, date_trunc('month', incurred_on)::date, currency, sum(counted), {is_folded}
    from ({rows}) as changed cross join lateral (values ('vendor', vendor_id), ('agency', agency_id))
        as parties (party, party_id)
    group by 1, 2, 3, 4, 5 having sum(counted) <> 0
"""
_ROWS = """
    select company_id, vendor_id, agency_id, incurred_on, currency, {sign}amount_minor as counted from {table}
    where state in ('approved', 'scheduled', 'paid')
"""
_FUNCTION = "create function {name}() returns trigger language plpgsql as $$ begin {body}; return null; end $$"
_TRIGGER = (
    "create trigger {name} after {event} on expenses referencing {tables} for each statement execute function {name}()"
)


def upgrade() -> None:
    op.create_table(
        "spent_sums",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("company_id", sa.Uuid(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("party_id", sa.Uuid()),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.Numeric(), nullable=False),
        sa.Column("is_folded", sa.Boolean(), nullable=False),
        sa.CheckConstraint("party in ('vendor', 'agency')", name="spent_sums_party_is_known"),
    )
    op.create_index(
        "spent_sums_company_id_party_month_party_id_currency_index",
        "spent_sums",
        ["company_id", "party", "month", "party_id", "currency"],
        postgresql_include=["amount_minor"],
    )
    op.create_index(
        "spent_sums_not_folded_index", "spent_sums", ["company_id"], postgresql_where=sa.text("not is_folded")
    )
    added, removed = _ROWS.format(sign="", table="added"), _ROWS.format(sign="-", table="removed")
    for name, event, tables, rows in (
        ("sum_up_added", "insert", "new table as added", added),
        ("sum_up_changed", "update", "old table as removed new table as added", f"{removed} union all {added}"),
    ):
        op.execute(_FUNCTION.format(name=name, body=_SUM_UP.format(rows=rows, is_folded="false")))
        op.execute(_TRIGGER.format(name=name, event=event, tables=tables))
    # For the length of the migration, in which nobody else gets at the table, its owner sees all of it.
    op.execute("alter table expenses no force row level security")
    op.execute(_SUM_UP.format(rows=_ROWS.format(sign="", table="expenses"), is_folded="true"))
    op.execute("alter table expenses force row level security")
    isolate_by_company(op, "spent_sums")
    op.create_index(
        "expenses_company_id_state_incurred_on_id_index", "expenses", ["company_id", "state", "incurred_on", "id"]
    )
    op.create_index(
        "expenses_owed_index",
        "expenses",
        ["company_id", "business_unit_id"],
        postgresql_include=[*_ADDED_UP, "scheduled_for", "incurred_on"],
        postgresql_where=sa.text("state in ('approved', 'scheduled')"),
    )
    op.create_index(
        "expenses_company_id_business_unit_id_incurred_on_id_index",
        "expenses",
        ["company_id", "business_unit_id", "incurred_on", "id"],
        postgresql_include=[*_ADDED_UP, "state"],
    )


def downgrade() -> None:
    op.drop_index("expenses_company_id_business_unit_id_incurred_on_id_index")
    op.drop_index("expenses_owed_index")
    op.drop_index("expenses_company_id_state_incurred_on_id_index")
    for name in ("sum_up_added", "sum_up_changed"):
        op.execute(f"drop trigger {name} on expenses")
        op.execute(f"drop function {name}()")
    op.drop_table("spent_sums")
