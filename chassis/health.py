"""Liveness and readiness, per service, without a token: an orchestrator has none."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

from fastapi import APIRouter

from chassis.manifest import Manifest
from chassis.routing import ResponseModel, problem_statuses, router
from contracts.errors import DomainError, Kind
from middleware.guards import Public, guard

_CHECK_TIMEOUT_SECONDS: Final = 2.0

Check = Callable[[], Awaitable[None]]


class NotReadyError(DomainError):
    """A dependency is away. The service goes on trying and is ready again by itself."""

    kind = Kind.UNAVAILABLE
    code = "not_ready"
    title = "The service is not ready"


class Live(ResponseModel):
    status: Literal["live"] = "live"


class Ready(ResponseModel):
    status: Literal["ready"] = "ready"


def health_router(manifest: Manifest, checks: Mapping[str, Check]) -> APIRouter:
    """`livez`: this process answers. `readyz`: and each dependency answered within 2 s, else 503 naming it."""
    health = router(prefix=manifest.route_group, tag="health")

    @health.get("/livez")
    @guard(Public("an orchestrator has no token"))
    async def livez() -> Live:
        return Live()

    @health.get("/readyz", responses=problem_statuses(503))
    @guard(Public("an orchestrator has no token"))
    async def readyz() -> Ready:
        outcomes = await asyncio.gather(*(_failure(name, check) for name, check in checks.items()))
        failures = [failure for failure in outcomes if failure]
        if failures:
            raise NotReadyError("; ".join(failures))
        return Ready()

    return health


async def _failure(name: str, check: Check) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
            await check()
    except TimeoutError:
        return f"{name} did not answer within {_CHECK_TIMEOUT_SECONDS:g} s"
    except DomainError as error:
        return f"{name}: {error.title.lower()} ({error.detail})"
    return None
