"""Builds the HTTP application of a service: the same code for `kisum serve`, for `kisum up` and for tests."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import structlog
from fastapi import FastAPI

from access.acknowledgements import Acknowledgements
from access.feed import Applied, OnApplied
from access.path import AccessPath
from chassis.background import Background
from chassis.documentation import documentation_router
from chassis.health import Check, NotReadyError, health_router
from chassis.metrics import ServiceMetrics
from chassis.problems import install_problems
from chassis.request_log import RequestLog
from chassis.routing import refuse_unguarded
from chassis.service import Service
from chassis.settings import AccessSettings, Settings
from contracts.errors import DomainError, Kind
from contracts.topics import TOPICS, Topic
from infra.clock import Clock, utc_now
from infra.kafka.clients import KafkaClients
from infra.kafka.probe import KafkaProbe
from infra.kafka.work import WorkConsumers
from infra.outbox.relay import Relay
from infra.outbox.store import OutboxStore
from infra.postgres.database import Database
from middleware.chain import Chain, cached_chain

_log = structlog.get_logger("kisum.service")


class AppliedListener(Protocol):
    """Under this type a service's components hold what is told of each state that came to decide."""

    def note(self, applied: Sequence[Applied]) -> None:
        """Must neither block nor raise."""


class ConsumersStoppedError(DomainError):
    """What they could not apply waits; only a new start of the process brings them back."""

    kind = Kind.UNAVAILABLE
    code = "consumers_stopped"
    title = "A consumer has stopped"


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
    background = Background()
    work = _consumers(service, settings, database, clock)
    kafka = None if isinstance(settings, AccessSettings) else _kafka_probe(service, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            if kafka is not None:
                stack.push_async_callback(kafka.close)
            if isinstance(settings, AccessSettings):
                told = Acknowledgements(
                    kafka=KafkaClients(settings.kafka), service=service.name, folder=settings.access_folder, clock=clock
                )
                path = _open_access(service, settings, _all_told(told, *_listeners(components)))
                stack.callback(path.close)
                await stack.enter_async_context(background.running("access feed", path.run()))
                stack.push_async_callback(told.sign_off, path)
                await stack.enter_async_context(background.running("acknowledgements", told.run(path)))
                app.state.access_path = metrics.access_path = path
                app.state.chain = cached_chain(
                    path, issuer=settings.token_issuer, audience=settings.token_audience, clock=clock
                )
            if _published_by(service.name):
                app.state.relay = metrics.relay = relay = _relay(service, settings, components, database, clock)
                await stack.enter_async_context(background.running("relay", relay.run()))
            if work is not None:
                await work.start()
                stack.push_async_callback(work.stop)
            for job in service.jobs:
                running = background.running(job.__name__, job(components, database, clock), may_end=True)
                await stack.enter_async_context(running)
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
    app.state.metrics = metrics = ServiceMetrics(service.name, consumers=work)
    app.state.components = components
    app.state.chain = components.get(Chain)
    #: A module's tables are fenced by company (row-level security); those of a system service belong to no one company.
    app.state.is_fenced = service.manifest.kind != "system"
    checks: dict[str, Check] = {"postgres": database.check, "background": background.check}
    if work is not None:
        checks["consumers"] = lambda: _check_consumers(work)
    # With an access cache a service is ready with or without Kafka, until the cache's bound has passed.
    checks |= {"access": lambda: _check_access(app)} if kafka is None else {"kafka": kafka.check}
    routers = [*service.routers, health_router(service.manifest, checks)]
    routers.append(documentation_router(service.manifest, app, tuple(routers)))
    install_problems(app, routers)
    for router in routers:
        app.include_router(router)
    app.add_middleware(RequestLog, service=service.name, counts=metrics.requests)
    return app


def _open_access(service: Service[Any], settings: AccessSettings, on_applied: OnApplied) -> AccessPath:
    settings.access_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return AccessPath.open(
        settings.access_folder,
        service=service.name,
        modules=service.modules,
        kafka=KafkaClients(settings.kafka),
        root_key=settings.root_key,
        bounds=settings.bounds,
        on_applied=on_applied,
    )


def _listeners(components: Mapping[type, Any]) -> list[AppliedListener]:
    return [components[AppliedListener]] if AppliedListener in components else []


def _all_told(*listeners: AppliedListener) -> OnApplied:
    def tell(applied: Sequence[Applied]) -> None:
        for listener in listeners:
            listener.note(applied)

    return tell


def _consumers(service: Service[Any], settings: Settings, database: Database, clock: Clock) -> WorkConsumers | None:
    consumers = (*service.consumers, *(projection.consumer for projection in service.projections))
    return WorkConsumers(settings.kafka, database, service.name, consumers, clock) if consumers else None


def _kafka_probe(service: Service[Any], settings: Settings) -> KafkaProbe:
    return KafkaProbe(settings.kafka, [topic for topic in TOPICS if service.name in topic.writers | topic.readers])


def _published_by(service: str) -> list[Topic]:
    """What goes through the service's outbox. Dead letters and acknowledgements are written where they arise."""
    return [topic for topic in TOPICS if topic.owner == service and not topic.dead_letters and not topic.other_writers]


def _relay(
    service: Service[Settings], settings: Settings, components: Mapping[type, Any], database: Database, clock: Clock
) -> Relay:
    return Relay(
        open_store=OutboxStore.opener(settings.database_url.get_secret_value()),
        database=database,
        kafka=KafkaClients(settings.kafka),
        topics=_published_by(service.name),
        sources=service.sources(components),
        clock=clock,
    )


async def _check_access(app: FastAPI) -> None:
    """Raises NotReadyError."""
    path: AccessPath = app.state.access_path
    readiness = path.ready
    if not readiness.is_ready:
        raise NotReadyError(readiness.why)


async def _check_consumers(work: WorkConsumers) -> None:
    """Raises ConsumersStoppedError."""
    if work.stopped:
        raise ConsumersStoppedError("; ".join(f"{name}: {why}" for name, why in sorted(work.stopped.items())))
