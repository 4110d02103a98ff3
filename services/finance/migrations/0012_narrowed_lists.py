"""Lists that are narrowed by days or by who did something look at the rows they show, and not at all before them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_SORTED = (["company_id", "id"], ["company_id", "incurred_on", "id"])
_WITH_DAYS = (
    ["company_id", "id", "incurred_on", "scheduled_for", "paid_on"],
    ["company_id", "incurred_on", "id", "scheduled_for", "paid_on"],
)
#: Who created an expense is always known, the others from some step on; before it they cost no write.
_PERSONS = {"created_by": None, "submitted_by": "submitted_by is not null", "decided_by": "decided_by is not null"}


def upgrade() -> None:
    for columns, replaced in zip(_WITH_DAYS, _SORTED, strict=True):
        op.create_index(_name(columns), "expenses", columns)
        op.drop_index(_name(replaced))
    for person, condition in _PERSONS.items():
        columns, where = ["company_id", person, "id"], None if condition is None else sa.text(condition)
        op.create_index(_name(columns), "expenses", columns, postgresql_where=where)


def downgrade() -> None:
    for person in _PERSONS:
        op.drop_index(_name(["company_id", person, "id"]))
    for columns, replaced in zip(_WITH_DAYS, _SORTED, strict=True):
        op.create_index(_name(replaced), "expenses", replaced)
        op.drop_index(_name(columns))


def _name(columns: list[str]) -> str:
    return f"expenses_{'_'.join(columns)}_index"
