from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from services.finance.app import service
from tests.harness.modules import RunningModule, running_module
from tests.harness.runtime import Runtime


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_finance(runtime: Runtime, tmp_path_factory: Any) -> AsyncIterator[RunningModule]:
    folder = tmp_path_factory.mktemp("finance")
    async with running_module(runtime, service, folder, cheap_path="/expenses?limit=1") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def finance(running_finance: RunningModule) -> RunningModule:
    """Its news of Auth and Core are of this moment, however long the tests before this one took."""
    await running_finance.sources.beat()
    return running_finance
