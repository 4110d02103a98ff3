"""Permission rows of the Finance module (domain §2). Append only."""

from functools import partial
from typing import Final

from contracts.permissions.row import Permission, Status

_SCOPE_TYPES: Final = ("business_unit", "event")
#: Approvals are also bounded by an amount per currency.
_APPROVAL_SCOPE_TYPES: Final = (*_SCOPE_TYPES, "approval_limit")
_row = partial(Permission, module="finance", scope_types=_SCOPE_TYPES)

ROWS: Final = (
    _row(key="finance.expenses.read", label="See expenses", bit=0),
    _row(key="finance.expenses.write", label="Add, change and submit expenses", bit=1),
    _row(key="finance.expenses.approve", label="Approve and reject expenses", bit=2, scope_types=_APPROVAL_SCOPE_TYPES),
    _row(key="finance.income.read", label="See income", bit=3),
    _row(key="finance.income.write", label="Add and change income", bit=4),
    _row(key="finance.bills.read", label="See bills", bit=5),
    _row(key="finance.bills.write", label="Add and change bills", bit=6),
    _row(key="finance.bills.approve", label="Approve bills", bit=7, scope_types=_APPROVAL_SCOPE_TYPES),
    _row(key="finance.settlements.read", label="See settlements", bit=8),
    _row(key="finance.settlements.write", label="Build and adjust settlements", bit=9),
    _row(
        key="finance.settlements.approve",
        label="Approve, dispute and pay settlements",
        bit=10,
        scope_types=_APPROVAL_SCOPE_TYPES,
    ),
    _row(key="finance.ticketing.read", label="See ticket audits", bit=11),
    _row(key="finance.ticketing.import", label="Import ticket audits", bit=12),
    _row(key="finance.budgets.read", label="See budgets", bit=13),
    _row(key="finance.budgets.write", label="Change budgets", bit=14),
    _row(key="finance.reports.read", label="See financial reports", bit=15),
    _row(key="finance.reports.export", label="Export financial reports", bit=16),
    _row(key="finance.dashboards.read", label="See agency and vendor dashboards", bit=17),
    _row(key="finance.rates.manage", label="Set exchange rates and withholding rules", bit=18, administration=True),
    # Legacy keys.
    _row(
        key="finance.expense.view",
        label="See expenses",
        bit=19,
        alias_of="finance.expenses.read",
        status=Status.DEPRECATED,
    ),
    _row(
        key="finance.expense.create",
        label="Add, change and submit expenses",
        bit=20,
        alias_of="finance.expenses.write",
        status=Status.DEPRECATED,
    ),
)
