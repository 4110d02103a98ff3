import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from access.feed import Applied
from access.freshness import Bounds, Clocks
from access.path import AccessPath
from infra.kafka.clients import Kafka, KafkaClients
from infra.kafka.connection import KafkaConnection
from infra.tasks import end_tasks
from tests.harness.access import ROOT_KEY, Sources, access_sources
from tests.harness.runtime import Runtime
from tests.harness.waiting import wait_until
from tests.integration.access.faulty import FaultyKafka


@pytest_asyncio.fixture
async def sources(runtime: Runtime) -> AsyncIterator[Sources]:
    async with access_sources(runtime) as found:
        yield found


@dataclass
class Instance:
    """A running access path of finance, which can be stopped and started again on its folder."""

    folder: Path
    kafka: FaultyKafka
    clocks: Clocks
    bounds: Bounds
    path: AccessPath
    task: "asyncio.Task[None]"
    applied: list[Applied]

    async def stop(self) -> None:
        await end_tasks(self.task)
        self.path.close()

    async def restart(self, *, kafka: Kafka | None = None) -> None:
        await self.stop()
        self.start(kafka)

    def start(self, kafka: Kafka | None = None) -> None:
        self.path = AccessPath.open(
            self.folder,
            service="finance",
            modules=("finance",),
            kafka=kafka or self.kafka,
            root_key=ROOT_KEY.public_key(),
            clocks=self.clocks,
            bounds=self.bounds,
            on_applied=self.applied.extend,
        )
        self.task = asyncio.create_task(self.path.run())

    async def until(self, accepted: Callable[[AccessPath], bool], describe: str) -> None:
        async def read() -> bool:
            return accepted(self.path)

        await wait_until(read, bool, describe=describe)


StartInstance = Callable[..., Awaitable[Instance]]


@pytest_asyncio.fixture
async def start_instance(sources: Sources, tmp_path: Path) -> AsyncIterator[StartInstance]:
    started: list[Instance] = []

    async def start(clocks: Clocks | None = None, bounds: Bounds | None = None) -> Instance:
        instance = Instance.__new__(Instance)
        instance.folder = tmp_path / f"cache-{len(started)}"
        instance.kafka = FaultyKafka(KafkaClients(sources.kafka))
        instance.applied = []
        instance.clocks = clocks or Clocks.of()
        instance.bounds = bounds or Bounds()
        instance.start()
        started.append(instance)
        return instance

    yield start
    for each in started:
        await each.stop()


@pytest.fixture
def unreachable(sources: Sources) -> Kafka:
    """Kafka that is away: the same installation at an address where nobody listens."""
    return KafkaClients(
        KafkaConnection(
            bootstrap_servers="127.0.0.1:1",
            username=sources.kafka.username,
            password=sources.kafka.password,
            topic_prefix=sources.kafka.topic_prefix,
        )
    )
