"""Whether a route tells of what it published: `Kisum-Revision` and the outbox say the same."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from fastapi.routing import APIRoute
from sqlalchemy import select

from chassis.routing import REVISION_HEADER
from chassis.service import Service
from infra.outbox.tables import states
from infra.postgres.database import Database

_READING = {"GET", "HEAD", "OPTIONS"}
#: Written by a transaction of its own whenever a key is due, not by the request that met it.
_NOT_BY_REQUEST = {"auth.signing-keys.v1"}

#: A method and a path, as a route declares them.
Write = tuple[str, str]


def write_routes(service: Service[Any]) -> set[Write]:
    """Every route of a service that may change something."""
    return {
        (method, route.path.removeprefix(service.manifest.route_group))
        for router in service.routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in (route.methods or set()) - _READING
    }


async def published_by(
    database: Database, call: Callable[[], Awaitable[httpx.Response]]
) -> tuple[set[str], list[str], httpx.Response]:
    """The revisions a call put into the outbox, and those its answer names. The relay must not run."""
    before = await _pending(database)
    answer = await call()
    named = [each for each in answer.headers.get(REVISION_HEADER, "").split(",") if each]
    return await _pending(database) - before, named, answer


async def _pending(database: Database) -> set[str]:
    rows = select(states.c.topic, states.c.key, states.c.epoch, states.c.version)
    async with database.unit_of_work() as work:
        found = await work.execute(rows.where(states.c.topic.not_in(_NOT_BY_REQUEST)))
        return {f"{topic}:{key}:{epoch}:{version}" for topic, key, epoch, version in found}
