"""Builds the HTTP application of a service: the same code for `kisum serve`, for `kisum up` and for tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from access.path import AccessPath
from access.unknown import StateUnknownError
from chassis.documentation import documentation_router
from chassis.health import health_router
from chassis.problems import install_problems
from chassis.request_log import RequestLog
from chassis.routing import refuse_unguarded
from chassis.service import Republish, Service
from chassis.settings import AccessSettings, Settings
from contracts.topics import TOPICS, Topic
from infra.clock import Clock, utc_now
from infra.kafka.clients import KafkaClients
from infra.kafka.probe import KafkaProbe
from infra.kafka.work import WorkConsumers
from infra.outbox.relay import Relay
from infra.outbox.store import OutboxStore
from infra.outbox.writer import Revision
from infra.postgres.database import Database
from infra.tasks import end_tasks
from middleware.chain import Chain, cached_chain

_log = structlog.get_logger("kisum.service")


class IncompleteServiceError(Exception):
    """A service's declaration leaves out a part without which a check would be switched off."""


def build_app(service: Service[Settings], settings: Settings, *, clock: Clock = utc_now) -> FastAPI:
    """A service as an ASGI application.

    Raises RouteWithoutGuardError or IncompleteServiceError rather than serve with a check missing. Nothing is connected
    before the application starts, and it starts without its dependencies: readiness says what is away.
    """
    refuse_unguarded(service.routers)
    database = Database(
        settings.database_url.get_secret_value(),
        application_name=service.name,
        connections_max=settings.database_connections_max,
    )
    components = service.compose(settings, database, clock)
    if not isinstance(settings, AccessSettings) and Chain not in components:
        raise IncompleteServiceError(f"{service.name} has no access cache and composes no Chain")
    kafka = KafkaProbe(settings.kafka, [topic for topic in TOPICS if service.name in topic.writers | topic.readers])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            stack.push_async_callback(kafka.close)
            if isinstance(settings, AccessSettings):
                path = _open_access(service, settings)
                stack.callback(path.close)
                await stack.enter_async_context(_running(path.run()))
                app.state.access_path = path
                app.state.chain = cached_chain(
                    path, issuer=settings.token_issuer, audience=settings.token_audience, clock=clock
                )
            if _published_by(service.name):
                await stack.enter_async_context(_running(_relay(service, settings, database, clock).run()))
            if service.consumers:
                work = WorkConsumers(settings.kafka, database, service.name, service.consumers, clock)
                await work.start()
                stack.push_async_callback(work.stop)
            for job in service.jobs:
                await stack.enter_async_context(_running(job(components, database, clock)))
            _log.info("service started", service=service.name)
            yield
        _log.info("service stopped", service=service.name)

    app = FastAPI(
        title=f"Kisum {service.name}",
        description=service.manifest.definition,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A redirect to the path with or without its last slash would be answered before any guard, to the host the
        # caller names, and would take a body past what was asked for.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.clock = clock
    app.state.database = database
    app.state.components = components
    app.state.chain = components.get(Chain)
    #: A module's tables are fenced by company (row-level security); those of a system service belong to no one company.
    app.state.is_fenced = service.manifest.kind != "system"
    checks: dict[str, Callable[[], Awaitable[None]]] = {"postgres": database.check}
    if isinstance(settings, AccessSettings):
        # With an access cache a service is ready with or without Kafka, until the cache's bound has passed.
        checks["access"] = lambda: _check_access(app)
    else:
        checks["kafka"] = kafka.check
    install_problems(app)
    for router in (*service.routers, health_router(service.manifest, checks)):
        app.include_router(router)
    app.include_router(documentation_router(service.manifest, app))
    app.add_middleware(RequestLog, service=service.name)
    return app


def _open_access(service: Service[Any], settings: AccessSettings) -> AccessPath:
    settings.access_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return AccessPath.open(
        settings.access_folder,
        service=service.name,
        modules=service.modules,
        kafka=KafkaClients(settings.kafka),
        root_key=settings.root_key,
        bounds=settings.bounds,
    )


def _published_by(service: str) -> list[Topic]:
    """What goes through the service's outbox. Dead letters and acknowledgements are written where they arise."""
    return [topic for topic in TOPICS if topic.owner == service and not topic.dead_letters and not topic.other_writers]


def _relay(service: Service[Settings], settings: Settings, database: Database, clock: Clock) -> Relay:
    return Relay(
        open_store=OutboxStore.opener(settings.database_url.get_secret_value()),
        database=database,
        kafka=KafkaClients(settings.kafka),
        topics=_published_by(service.name),
        republish={topic: _at_once(republish, clock) for topic, republish in service.republish.items()},
        clock=clock,
    )


def _at_once(republish: Republish, clock: Clock) -> Callable[[AsyncSession, str], Awaitable[Revision | None]]:
    async def at_once(work: AsyncSession, key: str) -> Revision | None:
        return await republish(work, key, now=clock())

    return at_once


async def _check_access(app: FastAPI) -> None:
    """Raises StateUnknownError."""
    path: AccessPath = app.state.access_path
    readiness = path.ready
    if not readiness.is_ready:
        raise StateUnknownError(readiness.why or "the access state is not known")


@asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    """Run something beside the application until it ends; a task that ends by itself is a defect and is logged."""
    task = asyncio.create_task(work)
    task.add_done_callback(_tell_of_death)
    try:
        yield
    finally:
        await end_tasks(task)


def _tell_of_death(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("a part of the service has ended", part=task.get_coro(), reason=repr(task.exception()))
