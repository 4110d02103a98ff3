from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from infra.kafka.connection import KafkaConnection
from infra.telemetry.logging import configure_logging
from tests.harness.runtime import Runtime, embedded_runtime

configure_logging()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    async with embedded_runtime(tmp_path_factory.mktemp("servers") / "kisum") as servers:
        yield servers


@pytest.fixture
def kafka_admin(runtime: Runtime) -> KafkaConnection:
    return runtime.kafka_admin
