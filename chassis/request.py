"""What one request is known by, from its first byte to its log line."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Scope

from access.path import AccessPath
from contracts.identifiers import CompanyId, new_id
from infra.clock import Clock
from infra.postgres.database import Database
from middleware.context import AccessContext
from middleware.identity import Identity

_SCOPE_KEY: Final = "kisum.request"

Component = TypeVar("Component")


def _new_request_id() -> str:
    return str(new_id())


@dataclass(slots=True)
class RequestRecord:
    """Filled by the steps a request passes; read by the request log and by problem bodies."""

    request_id: str = field(default_factory=_new_request_id)
    endpoint: str | None = None
    action: str | None = None
    company_id: CompanyId | None = None
    identity: Identity | None = None
    access: AccessContext | None = None
    #: The problem code, where the answer is a problem.
    reason: str | None = None

    def assert_scope_judged(self) -> None:
        """Raises RuntimeError where the route has a scope and did not judge it: that is a defect, never a yes."""
        if self.access is not None and not self.access.is_scope_judged:
            raise RuntimeError(f"{self.endpoint} answers without having judged its scope")


def record_of(scope: Scope) -> RequestRecord:
    """The record of a request, made when it is first asked for."""
    record = scope.get(_SCOPE_KEY)
    if record is None:
        record = scope[_SCOPE_KEY] = RequestRecord()
    return cast("RequestRecord", record)


async def _identity(request: Request) -> Identity:
    identity = record_of(request.scope).identity
    if identity is None:
        raise RuntimeError(f"{request.url.path} reads the caller, but its guard lets in callers who are not signed in")
    return identity


async def _access(request: Request) -> AccessContext:
    access = record_of(request.scope).access
    if access is None:
        raise RuntimeError(f"{request.url.path} reads its access context, but its guard makes none")
    return access


async def _company(request: Request) -> CompanyId:
    company_id = record_of(request.scope).company_id
    if company_id is None:
        raise RuntimeError(f"{request.url.path} reads its company, but its guard asks for none")
    return company_id


async def _access_path(request: Request) -> AccessPath:
    path: AccessPath = request.app.state.access_path
    return path


async def _now(request: Request) -> datetime:
    clock: Clock = request.app.state.clock
    return clock()


async def _units_of_work(request: Request) -> Callable[[], AbstractAsyncContextManager[AsyncSession]]:
    database: Database = request.app.state.database
    record = record_of(request.scope)
    company_id = record.company_id if request.app.state.is_fenced else None

    @asynccontextmanager
    async def begin() -> AsyncIterator[AsyncSession]:
        async with database.unit_of_work(company_id=company_id) as session:
            yield session
            # Before the commit: when the answer is held back, what was written must not stand.
            record.assert_scope_judged()

    return begin


#: Units of work of the request's company, one after another, for what lasts longer than a transaction may: a file that
#: comes in, a list that goes out. Whoever can do with one takes `Work`.
UnitsOfWork = Annotated[Callable[[], AbstractAsyncContextManager[AsyncSession]], Depends(_units_of_work)]


async def _unit_of_work(begin: UnitsOfWork) -> Any:
    async with begin() as session:
        yield session


def component(kind: type[Component]) -> Any:
    """A dependency on what the service's composition root built under this type."""

    async def provide(request: Request) -> Component:
        return cast("Component", request.app.state.components[kind])

    return Depends(provide)


#: The signed-in caller.
Caller = Annotated[Identity, Depends(_identity)]
#: What the caller may do in the company the request is for.
Access = Annotated[AccessContext, Depends(_access)]
#: The company the request is for.
Company = Annotated[CompanyId, Depends(_company)]
#: The service's own access cache and decision, for routes that tell about access.
OwnAccessPath = Annotated[AccessPath, Depends(_access_path)]
#: The time of the request, from the service's clock.
Now = Annotated[datetime, Depends(_now)]
#: The request's transaction. It ends before the answer leaves: who reads 201 can rely on the commit.
Work = Annotated[AsyncSession, Depends(_unit_of_work, scope="function")]
