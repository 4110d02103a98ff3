"""Brings a service's database to its newest version: migrations, then seeds, in one transaction under one lock.

Run as the owner role, before the service starts and never by the service: the application role owns nothing.
"""

from pathlib import Path
from typing import Any, Final

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from chassis.seeds import apply_seeds
from chassis.service import Service

_ENVIRONMENT: Final = Path(__file__).parent / "migration_environment"
#: One number for all: advisory locks are per database.
_LOCK: Final = 7_305_800_001

_log = structlog.get_logger("kisum.migrations")


async def migrate(service: Service[Any], owner_url: str) -> None:
    """Apply what is missing. Two at once wait for each other; one that fails leaves the database as it was."""
    engine = create_async_engine(owner_url.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.execute(text("create schema if not exists migration"))
            await connection.run_sync(_upgrade, service.migrations)
            seeded = await apply_seeds(connection, service.seeds)
    finally:
        await engine.dispose()
    _log.info("database is at its newest version", service=service.name, rows_seeded=seeded)


def alembic_config(versions: Path) -> Config:
    """Alembic's view of one service: a shared environment, the service's own versions."""
    config = Config()
    config.set_main_option("script_location", str(_ENVIRONMENT))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection, versions: Path) -> None:
    config = alembic_config(versions)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
