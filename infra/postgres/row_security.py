"""Row-level security by company: the second fence behind the decision (design §5, Chain).

A unit of work names its company; PostgreSQL shows and takes only that company's rows. One that names none sees nothing
and writes nothing: the fence fails closed.
"""

from typing import Any, Final

COMPANY_SETTING: Final = "app.company_id"
#: After its transaction the setting is an empty text, not absent, hence nullif.
_ITS_OWN: Final = f"company_id = nullif(current_setting('{COMPANY_SETTING}', true), '')::uuid"


def isolate_by_company(op: Any, table: str) -> None:
    """In an Alembic version: fence a table that has a `company_id`, for its owner too."""
    op.execute(f"alter table {table} enable row level security")
    op.execute(f"alter table {table} force row level security")
    op.execute(f"create policy company on {table} using ({_ITS_OWN}) with check ({_ITS_OWN})")
