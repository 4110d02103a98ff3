from collections.abc import AsyncIterator

import pytest_asyncio

from infra.postgres.database import Database
from services.checkout.app import service
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.integration.checkout.buying import fill_catalog


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def database(runtime: Runtime) -> AsyncIterator[Database]:
    """Checkout's database with a catalog, shared by these tests: each has companies of its own."""
    created = await service_database(runtime, service)
    opened = Database(created.url(runtime.administrator_url), application_name="test")
    await fill_catalog(opened)
    yield opened
    await opened.close()
