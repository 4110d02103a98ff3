"""Builds the HTTP application of a service: the same code for `kisum serve`, for `kisum up` and for tests."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from fastapi import FastAPI

from chassis.documentation import documentation_router
from chassis.health import health_router
from chassis.problems import install_problems
from chassis.request_log import RequestLog
from chassis.routing import refuse_unguarded
from chassis.service import Service
from chassis.settings import Settings
from contracts.topics import TOPICS
from infra.clock import Clock, utc_now
from infra.kafka.probe import KafkaProbe
from infra.postgres.database import Database
from middleware.token import TokenVerifier

_log = structlog.get_logger("kisum.service")


class IncompleteServiceError(Exception):
    """A service's composition root leaves out a part without which a check would be switched off."""


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
    kafka = KafkaProbe(settings.kafka, [topic for topic in TOPICS if service.name in topic.writers | topic.readers])
    components = service.compose(settings, database, clock)
    if TokenVerifier not in components:
        raise IncompleteServiceError(f"{service.name} composes no TokenVerifier")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            stack.push_async_callback(kafka.close)
            _log.info("service started", service=service.name)
            yield
        _log.info("service stopped", service=service.name)

    app = FastAPI(
        title=f"Kisum {service.name}",
        description=service.manifest.definition,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.clock = clock
    app.state.database = database
    app.state.components = components
    install_problems(app)
    for router in (
        *service.routers,
        health_router(service.manifest, {"postgres": database.check, "kafka": kafka.check}),
    ):
        app.include_router(router)
    app.include_router(documentation_router(service.manifest, app))
    app.add_middleware(RequestLog, service=service.name)
    return app
