"""Permission rows of the AI module (domain §2). Append only."""

from functools import partial
from typing import Final

from contracts.permissions.row import Permission

_SCOPE_TYPES: Final = ("business_unit", "event")
_row = partial(Permission, module="ai", scope_types=_SCOPE_TYPES)

ROWS: Final = (
    _row(key="ai.predictions.read", label="See sales forecasts", bit=0),
    _row(key="ai.predictions.run", label="Run sales forecasts", bit=1),
    _row(key="ai.research.read", label="See research", bit=2),
    _row(key="ai.research.run", label="Run research", bit=3),
    _row(key="ai.valuations.read", label="See event and artist valuations", bit=4),
    _row(key="ai.valuations.run", label="Run event and artist valuations", bit=5),
    _row(key="ai.copilot.use", label="Use the copilot", bit=6),
    _row(key="ai.sales-reports.read", label="See sales reports for campaigns", bit=7, capability="ai_sales_report"),
    _row(key="ai.models.manage", label="Choose and promote models", bit=8, administration=True),
)
