"""A service of the real code on the run's servers, in a database and topics of its own."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from chassis.application import build_app
from chassis.migrations import migrate
from chassis.service import Service
from contracts.topics import TOPICS
from infra.kafka.bootstrap import bootstrap
from infra.kafka.connection import KafkaConnection
from infra.postgres.provision import ServiceDatabase, provision
from infra.tasks import end_tasks
from tests.harness.clock import FakeClock
from tests.harness.runtime import Runtime

ROOT_KEY = base64.urlsafe_b64encode(b"root key of a test, 32 bytes ...").decode()
ENCRYPTION_KEY = base64.urlsafe_b64encode(b"cipher key of a test, 32 bytes .").decode()


@dataclass(frozen=True)
class RunningService:
    """`client` calls the application in this process; there is no socket between."""

    app: FastAPI
    client: httpx.AsyncClient
    clock: FakeClock
    database: ServiceDatabase
    kafka: KafkaConnection


async def service_database(runtime: Runtime, service: Service[Any]) -> ServiceDatabase:
    """A new database with this service's roles, migrated and seeded."""
    name = f"{runtime.new_prefix()}{service.name}"
    database = ServiceDatabase(name=name, password="application", owner_password="owner")
    await provision(runtime.administrator_url, {service.name: database})
    await migrate(service, database.owner_url(runtime.administrator_url))
    return database


@asynccontextmanager
async def running_service(
    runtime: Runtime, service: Service[Any], settings: Mapping[str, Any] | None = None
) -> AsyncIterator[RunningService]:
    """A service with everything it needs, as `kisum serve` builds it, on a clock that stands still."""
    prefix = runtime.new_prefix()
    kafka = KafkaConnection(
        bootstrap_servers=runtime.kafka_admin.bootstrap_servers,
        username=service.name,
        password="principal of a test",
        topic_prefix=prefix,
    )
    database = await service_database(runtime, service)
    own_topics = [topic for topic in TOPICS if service.name in topic.writers | topic.readers]
    admin = runtime.administrator(prefix)
    await asyncio.to_thread(bootstrap, admin, own_topics, {service.name: kafka.password})
    clock = FakeClock()
    app = build_app(
        service,
        service.settings(
            database_url=database.url(runtime.administrator_url),
            kafka_bootstrap_servers=kafka.bootstrap_servers,
            kafka_username=service.name,
            kafka_password=kafka.password,
            topic_prefix=prefix,
            token_issuer="test",
            token_audience="kisum",
            **(settings or {}),
        ),
        clock=clock,
    )
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://kisum.test") as client,
    ):
        yield RunningService(app=app, client=client, clock=clock, database=database, kafka=kafka)


@asynccontextmanager
async def running_jobs(service: Service[Any], app: FastAPI) -> AsyncIterator[None]:
    """The service's time-driven work beside an application whose lifespan does not run."""
    tasks = [
        asyncio.create_task(job(app.state.components, app.state.database, app.state.clock)) for job in service.jobs
    ]
    try:
        yield
    finally:
        await end_tasks(*tasks)
