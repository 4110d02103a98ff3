from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.harness.runtime import Runtime
from tests.integration.outbox.parts import Owner, new_owner


@pytest_asyncio.fixture(loop_scope="session")
async def owner(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Owner]:
    async with new_owner(runtime, tmp_path) as found:
        yield found
