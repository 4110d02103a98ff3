"""Core's composition root."""

import tomllib
from pathlib import Path
from typing import Final

from chassis.seeds import Seed
from chassis.service import Service
from services.entitlements.catalog import operations as catalog_operations
from services.entitlements.catalog.http import catalog
from services.entitlements.companies import operations as company_operations
from services.entitlements.companies.http import companies
from services.entitlements.consumers import CONSUMERS
from services.entitlements.database import Base
from services.entitlements.jobs import JOBS
from services.entitlements.manifest import MANIFEST
from services.entitlements.settings import EntitlementsSettings

_HERE: Final = Path(__file__).parent
#: The catalog is several tables: its seed names the table before the row.
_CATALOG_ROWS: Final = tomllib.loads((_HERE / "catalog" / "seed.toml").read_text())


service = Service(
    manifest=MANIFEST,
    settings=EntitlementsSettings,
    routers=(catalog, companies),
    jobs=JOBS,
    migrations=_HERE / "migrations",
    seeds=tuple(Seed(table=Base.metadata.tables[name], rows=rows) for name, rows in _CATALOG_ROWS.items()),
    consumers=CONSUMERS,
    sources=lambda _: {operations.TOPIC.name: operations for operations in (catalog_operations, company_operations)},
)
