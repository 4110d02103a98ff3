import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from infra.kafka.connection import KafkaConnection
from infra.telemetry.logging import configure_logging
from tests.harness.runtime import Runtime, embedded_runtime

configure_logging()

# How long something takes says nothing of whether it is right, least of all on a busy machine.
settings.register_profile(
    "kisum",
    max_examples=int(os.environ.get("KISUM_TEST_CASES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kisum")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    if os.environ.get("KISUM_TEST_RUNTIME") == "containers":
        # Imported only here: a machine without Docker needs nothing of it.
        from tests.harness.containers import container_runtime

        started = container_runtime()
    else:
        started = embedded_runtime(tmp_path_factory.mktemp("servers") / "kisum")
    async with started as servers:
        yield servers


@pytest.fixture
def kafka_admin(runtime: Runtime) -> KafkaConnection:
    return runtime.kafka_admin
