from collections.abc import AsyncIterator

import pytest_asyncio

from infra.postgres.database import Database
from services.auth.app import service
from tests.harness.runtime import Runtime
from tests.harness.services import ENCRYPTION_KEY, ROOT_KEY, RunningService, running_service, service_database

KEYS = {"root_private_key": ROOT_KEY, "key_encryption_key": ENCRYPTION_KEY}


@pytest_asyncio.fixture(loop_scope="session")
async def auth(runtime: Runtime) -> AsyncIterator[RunningService]:
    async with running_service(runtime, service, KEYS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_auth(runtime: Runtime) -> AsyncIterator[RunningService]:
    """One service for the tests of a module, which share its rows and leave its clock alone."""
    async with running_service(runtime, service, KEYS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_rows(runtime: Runtime, shared_auth: RunningService) -> AsyncIterator[Database]:
    """The rows of that service."""
    database = Database(shared_auth.database.url(runtime.administrator_url), application_name="test")
    yield database
    await database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def database(runtime: Runtime) -> AsyncIterator[Database]:
    """Auth's database without the service: what is published stays in the outbox."""
    created = await service_database(runtime, service)
    database = Database(created.url(runtime.administrator_url), application_name="test")
    yield database
    await database.close()
