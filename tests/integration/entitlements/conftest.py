from collections.abc import AsyncIterator

import pytest_asyncio

from infra.postgres.database import Database
from services.entitlements.app import service
from tests.harness.runtime import Runtime
from tests.harness.services import service_database


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def database(runtime: Runtime) -> AsyncIterator[Database]:
    """Core's database, shared by these tests: each has companies of its own."""
    created = await service_database(runtime, service)
    opened = Database(created.url(runtime.administrator_url), application_name="test")
    yield opened
    await opened.close()
