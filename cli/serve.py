"""Runs the HTTP application of one service, or of all in one process behind one address."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import click
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from chassis.application import build_app
from chassis.problems import install_problems
from chassis.service import Service
from chassis.settings import SettingsError, read_settings
from cli.registry import load, service_names
from infra.embedded.errors import CannotStart
from infra.telemetry.logging import configure_logging

_GRACE_SECONDS = 4
ALL = "all"


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


@click.command()
@click.argument("service", type=click.Choice([*service_names(), ALL]))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="The port to listen on.")
@click.option("--log-level", default="INFO", show_default=True)
def serve(service: str, host: str, port: int, log_level: str) -> None:
    """Run SERVICE against the addresses in its environment, KISUM_<SERVICE>_... ; `all` runs every one in a process."""
    configure_logging(log_level)
    declared = load(service_names() if service == ALL else [service])
    try:
        apps = {name: (each, build_app(each, read_settings(each.settings))) for name, each in declared.items()}
    except SettingsError as error:
        raise CannotStart(f"the settings of {service} are not complete: {error}") from None
    app = one_application(apps) if service == ALL else apps[service][1]
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        sys.exit(1)
