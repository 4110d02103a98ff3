from collections.abc import AsyncIterator

import pytest_asyncio

from services.auth.app import service
from tests.harness.runtime import Runtime
from tests.harness.services import ENCRYPTION_KEY, ROOT_KEY, RunningService, running_service


@pytest_asyncio.fixture(loop_scope="session")
async def auth(runtime: Runtime) -> AsyncIterator[RunningService]:
    keys = {"root_private_key": ROOT_KEY, "key_encryption_key": ENCRYPTION_KEY}
    async with running_service(runtime, service, keys) as running:
        yield running
