"""Runs the HTTP application of one service, or of all in one process behind one address."""

import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from chassis.application import build_app
from chassis.metrics import ServiceMetrics
from chassis.problems import install_problems
from chassis.service import Service
from chassis.settings import WORKERS_MAX, ServiceSettings, SettingsError, read_settings
from cli.metrics import metrics_given_out
from cli.registry import load, service_names
from cli.server import configured, keep_for_good, run
from cli.workers import Workers
from infra.embedded.errors import CannotStart
from infra.telemetry.logging import configure_logging

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
ALL = "all"


@dataclass(frozen=True)
class MetricsAddress:
    """Where a process gives out its metrics: on the first of these ports that is free, so that each worker has one."""

    host: str
    ports: range


class _RouteGroup(BaseRoute):
    """Hands whatever is under a service's route group to its application, path unchanged."""

    def __init__(self, prefix: str, app: FastAPI) -> None:
        self._prefix = prefix
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope["path"]
        inside = scope["type"] == "http" and (path == self._prefix or path.startswith(self._prefix + "/"))
        return (Match.FULL if inside else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def one_application(apps: dict[str, tuple[Service[Any], FastAPI]]) -> Starlette:
    """All services behind one address; the root lists them."""

    @asynccontextmanager
    async def lifespan(_application: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for _, app in apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    async def index(_: Request) -> JSONResponse:
        return JSONResponse(
            {
                name: {
                    "definition": service.manifest.definition,
                    "documentation": f"{service.manifest.route_group}/docs",
                }
                for name, (service, _) in apps.items()
            }
        )

    groups = [_RouteGroup(service.manifest.route_group, app) for service, app in apps.values()]
    application = Starlette(routes=[Route("/", index), *groups], lifespan=lifespan)
    install_problems(application)
    return application


def with_metrics(application: Starlette, services: Sequence[ServiceMetrics], address: MetricsAddress) -> None:
    """Have the application give out the metrics of its services while it runs."""
    lifespan = application.router.lifespan_context

    @asynccontextmanager
    async def giving_out(running: Starlette) -> AsyncIterator[Any]:
        async with lifespan(running) as state, metrics_given_out(services, address.host, address.ports):
            yield state

    application.router.lifespan_context = giving_out


@click.command()
@click.argument("service", type=click.Choice([*service_names(), ALL]), envvar="SERVICE")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="The port to listen on.")
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    help="How many processes answer on the port.  [default: KISUM_<SERVICE>_WORKERS, or 1]",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65536 - WORKERS_MAX),
    help="Give out metrics at this port; of several workers each takes the next one.  [default: give out none]",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="The address for metrics to listen on.")
@click.option("--log-level", type=click.Choice(_LOG_LEVELS, case_sensitive=False), default="INFO", show_default=True)
def serve(
    service: str,
    *,
    host: str,
    port: int,
    workers: int | None,
    metrics_port: int | None,
    metrics_host: str,
    log_level: str,
) -> None:
    """Run SERVICE against the addresses in its environment, KISUM_<SERVICE>_... ; `all` runs every one in a process."""
    configure_logging(log_level)
    settings = _settings_of(service)
    if workers is None:
        workers = max(each.workers for each in settings.values())
    metrics = None
    if metrics_port is not None:
        metrics = MetricsAddress(metrics_host, range(metrics_port, metrics_port + workers))
    if workers > 1:
        # Workers build the application themselves: neither it nor an open cache goes from one process to another.
        config = configured(partial(_application_of_worker, service, metrics, log_level), host, port, workers)
        processes = Workers(config, sockets=[config.bind_socket()])
        processes.run()
        sys.exit(1 if processes.has_failed else 0)
    if not run(_application(service, settings, metrics), host, port):
        sys.exit(1)


def _settings_of(service: str) -> dict[str, ServiceSettings]:
    """The settings of what is served, by service. Raises CannotStart."""
    try:
        return {name: read_settings(each.settings) for name, each in _declared(service).items()}
    except SettingsError as error:
        raise CannotStart(f"the settings of {service} are not complete: {error}") from None


def _declared(service: str) -> dict[str, Service[Any]]:
    return load(service_names() if service == ALL else [service])


def _application(service: str, settings: Mapping[str, ServiceSettings], metrics: MetricsAddress | None) -> Starlette:
    apps = {name: (each, build_app(each, settings[name])) for name, each in _declared(service).items()}
    application = one_application(apps) if service == ALL else apps[service][1]
    if metrics is not None:
        with_metrics(application, [app.state.metrics for _, app in apps.values()], metrics)
    return application


def _application_of_worker(service: str, metrics: MetricsAddress | None, log_level: str) -> Starlette:
    configure_logging(log_level)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    application = _application(service, _settings_of(service), metrics)
    keep_for_good()
    return application


def _end_with(parent: "multiprocessing.process.BaseProcess") -> None:
    """A worker whose parent was killed would go on answering on the port."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
