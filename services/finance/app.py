"""Finance's composition root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chassis.idempotency import forget_idempotency_keys
from chassis.kept_files import remove_unclaimed_files
from chassis.service import Service
from infra.clock import Clock
from infra.files import Files, open_files
from infra.postgres.database import Database
from services.finance.attachments.http import attachments
from services.finance.bills.http import bills
from services.finance.categories.http import categories
from services.finance.dashboards.http import dashboards
from services.finance.expenses.http import expenses
from services.finance.income.http import income
from services.finance.jobs import fold_spent_sums
from services.finance.manifest import MANIFEST
from services.finance.periods.http import periods
from services.finance.projections.artists import ARTISTS
from services.finance.projections.events import EVENTS
from services.finance.rates.http import rates
from services.finance.settings import FinanceSettings


def _compose(settings: FinanceSettings, _database: Database, _clock: Clock) -> Mapping[type, Any]:
    return {Files: open_files(settings.files_url, settings.files_account)}


service = Service(
    manifest=MANIFEST,
    settings=FinanceSettings,
    routers=(expenses, bills, income, categories, periods, rates, attachments, dashboards),
    compose=_compose,
    migrations=Path(__file__).parent / "migrations",
    projections=(EVENTS, ARTISTS),
    jobs=(forget_idempotency_keys, remove_unclaimed_files, fold_spent_sums),
    modules=frozenset({MANIFEST.key}),
)
