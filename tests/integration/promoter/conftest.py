from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from services.promoter.app import service
from tests.harness.modules import RunningModule, running_module
from tests.harness.runtime import Runtime


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def promoter(runtime: Runtime, tmp_path_factory: Any) -> AsyncIterator[RunningModule]:
    folder = tmp_path_factory.mktemp("promoter")
    async with running_module(runtime, service, folder, cheap_path="/events?limit=1") as running:
        yield running
