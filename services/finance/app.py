"""Finance's composition root."""

from pathlib import Path

from chassis.idempotency import forget_idempotency_keys
from chassis.service import Service
from services.finance.bills.http import bills
from services.finance.categories.http import categories
from services.finance.expenses.http import expenses
from services.finance.income.http import income
from services.finance.manifest import MANIFEST
from services.finance.periods.http import periods
from services.finance.projections.artists import ARTISTS
from services.finance.projections.events import EVENTS
from services.finance.rates.http import rates
from services.finance.settings import FinanceSettings

service = Service(
    manifest=MANIFEST,
    settings=FinanceSettings,
    routers=(expenses, bills, income, categories, periods, rates),
    migrations=Path(__file__).parent / "migrations",
    projections=(EVENTS, ARTISTS),
    jobs=(forget_idempotency_keys,),
    modules=frozenset({MANIFEST.key}),
)
