"""Each service does what its OpenAPI document says: asked over HTTP, by Schemathesis, with all of its checks.

The requests are made from the document, so a new route is asked without being named, and from one seed.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from schemathesis.engine import events, from_schema
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import compile_path

from chassis.health import Live
from chassis.routing import router
from chassis.service import Service
from contracts.identifiers import new_id
from middleware.guards import Public, guard
from services.access_resolver.app import service as access_resolver
from services.auth.app import service as auth
from services.checkout.app import service as checkout
from services.entitlements.app import service as entitlements
from tests.harness.access import catalog
from tests.harness.runtime import Runtime
from tests.harness.services import running_service
from tests.harness.waiting import wait_until
from tests.integration.auth.conftest import KEYS
from tests.integration.auth.people import signed_in_person
from tests.integration.checkout.buying import fill_catalog
from tests.integration.entitlements.calling import called_service
from tests.integration.test_route_matrix import BODIES, EXAMPLES, PUT_INTO, SERVICES, example, granted, having

#: What the generator says of the values it makes is nothing that a service does.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")

#: Requests per operation beside those that every document gives rise to.
_EXAMPLES: Final = 4
_SEED: Final = 1
_PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")
#: What a schema cannot say can be refused in a request that it allows: an object that is not there (404), a state or a
#: version it is not in (409, 412, 428), and a rule between two values or about what is stored (422), such as that a
#: cursor is one that was given out. Never 400: what is well-formed is said by the schema.
_REFUSED_BY_A_RULE: Final = ["404", "409", "412", "422", "428"]
#: Without If-Match nothing is changed, and the answer to that is 428.
_REFUSED_WITHOUT_A_HEADER: Final = ["400", "401", "403", "415", "422", "428"]


_ENDS_A_SESSION: Final = "DELETE /api/auth/sessions/{session_id}"


@dataclass(frozen=True)
class Asked:
    """What came of asking: the operations that answered at all, those that did what they were asked, the failures."""

    operations: frozenset[str]
    done: frozenset[str]
    requests: int
    failures: list[str]


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case[Any], kwargs: Any) -> None:
    """Send what a careful client does, where a schema does not tell it: a new key with each request, and an ETag that
    matches. Where the request is meant to be wrong, it is left as it is.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for header, value in (("idempotency-key", str(new_id())), ("if-match", "*")):
        if header in case.headers:
            case.headers[header] = value
    if case.operation.label == _ENDS_A_SESSION:
        # Not the caller's own, which other answers tell of: everything after it would be asked by nobody.
        case.path_parameters["session_id"] = str(new_id())


def ask(document: Mapping[str, Any], url: str, headers: Mapping[str, str]) -> Asked:
    """Send what can be made of the document. Blocks; the same document gives rise to the same requests."""
    config = schemathesis.Config.from_dict(
        {
            "base-url": url,
            "seed": _SEED,
            "workers": 1,
            "continue-on-failure": True,
            "headers": {"Authorization": headers["Authorization"]},
            "parameters": {"header.Kisum-Company-Id": headers["Kisum-Company-Id"]},
            "generation": {"max-examples": _EXAMPLES, "deterministic": True, "no-shrink": True, "database": "none"},
            "phases": {phase: {"enabled": True} for phase in _PHASES},
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "403", "429", *_REFUSED_BY_A_RULE]},
                "missing_required_header": {"expected-statuses": _REFUSED_WITHOUT_A_HEADER},
            },
            "operations": _exclusions(document),
        }
    )
    schema = schemathesis.openapi.from_dict(dict(document), config=config)
    operations: set[str] = set()
    done: set[str] = set()
    failures: dict[tuple[str, ...], str] = {}
    requests = 0
    for event in from_schema(schema).execute():
        match event:
            case events.ScenarioFinished(recorder=recorder):
                requests += len(recorder.interactions)
                for case_id, sent in recorder.interactions.items():
                    label = recorder.cases[case_id].value.operation.label
                    operations.add(label)
                    if sent.response is not None and sent.response.status_code < 300:
                        done.add(label)
                for check in (check for checks in recorder.checks.values() for check in checks):
                    if found := check.failure_info:
                        what = (check.name, str(found.failure.operation), found.failure.title)
                        failures.setdefault(what, f"{what}: {found.failure.message}\n{found.code_sample}")
            case events.NonFatalError(label=label, value=error):
                failures[label, repr(error)] = f"{label}: {error!r}"
            case events.FatalError(exception=error):
                raise error
    return Asked(frozenset(operations), frozenset(done), requests, list(failures.values()))


def _exclusions(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is not checked of which operations."""
    paths: Mapping[str, Any] = document["paths"]
    found: list[Mapping[str, Any]] = [
        # What a service needs is not there: that it says so is its answer, not a failure.
        {"include-path": path, "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503"]}}}
        for path in paths
        if path.endswith("/readyz")
    ]
    for path in paths:
        others = [other for other in paths if other != path and compile_path(other)[0].match(path)]
        if others and "{" not in path:
            # For a method it has not, its word stands where the other has an id, and is refused as an id it is not.
            unchecked = {check: {"enabled": False} for check in ("unsupported_method", "allow_header_conformance")}
            found.append({"include-path": path, "checks": unchecked})
    return found


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """The application on a socket of this machine."""
    # By its protocol asyncio sees that small packets are to be sent at once.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))

        async def started() -> bool:
            return server.started

        await wait_until(started, bool, describe="the server listens")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def asked(service: Service[Any], app: FastAPI, client: httpx.AsyncClient, headers: Mapping[str, str]) -> Asked:
    """Ask the application everything as whoever sends these headers."""
    document = (await client.get(f"{service.manifest.route_group}/openapi.json")).json()
    async with listening(app) as url:
        what = await asyncio.to_thread(ask, with_examples(document), url, headers)
    assert what.operations == operations_of(document)
    return what


def operations_of(document: Mapping[str, Any]) -> set[str]:
    return {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


_ACCOUNT: Final = {"email": "asked@example.com", "password": "a long enough passphrase"}
#: Bodies of the system services, which the table of routes does not know.
_SYSTEM_BODIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "/api/auth/users": {**_ACCOUNT, "display_name": "Asked"},
    "/api/auth/token": _ACCOUNT,
    "/api/checkout/sessions": {"package": "venue", "addons": [], "trial": False},
}


def with_examples(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document and a body for each route that takes more than a schema tells: else few requests would find two
    values that agree, and few objects would be there to ask for.
    """
    told = deepcopy(dict(document))
    for path, item in told["paths"].items():
        for operation in item.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            body = example(path) if path in EXAMPLES else {**BODIES, **_SYSTEM_BODIES}.get(path)
            if content is not None and body is not None:
                content["example"] = dict(body)
    return told


@pytest.mark.parametrize("name", SERVICES)
async def test_a_module_does_what_its_document_says(runtime: Runtime, name: str, tmp_path: Path) -> None:
    service = SERVICES[name]
    async with called_service(runtime, service, tmp_path) as called:
        person = await called.person()
        called.access.hold(catalog(name))
        called.access.hold(having(name), company_id=person.company_id)
        called.access.hold(granted(name, person), company_id=person.company_id)
        what = await asked(service, called.app, called.client, person.headers)
    assert not what.failures, "\n\n".join(what.failures)
    made = {f"{'PUT' if path in PUT_INTO else 'POST'} {path}" for path in EXAMPLES if path.startswith(f"/api/{name}/")}
    assert made <= what.done, "else nothing was there to be asked for"


#: Those that judge from an access cache, with the settings they need.
SYSTEM_SERVICES: Final[Mapping[str, tuple[Service[Any], Mapping[str, Any]]]] = {
    "entitlements": (entitlements, {}),
    "checkout": (checkout, {"webhook_secret": "secret of a test, 32 characters ", "public_url": "http://127.0.0.1:1"}),
    "access_resolver": (access_resolver, {}),
}


@pytest.mark.parametrize("name", SYSTEM_SERVICES)
async def test_a_system_service_does_what_its_document_says(runtime: Runtime, name: str, tmp_path: Path) -> None:
    service, settings = SYSTEM_SERVICES[name]
    async with called_service(runtime, service, tmp_path, settings) as called:
        if name == "checkout":
            await fill_catalog(called.database)
        person = await called.platform_admin()
        what = await asked(service, called.app, called.client, person.headers)
    assert not what.failures, "\n\n".join(what.failures)


async def test_auth_does_what_its_document_says(runtime: Runtime) -> None:
    async with running_service(runtime, auth, KEYS) as running:
        person = await signed_in_person(running)
        founded = await running.client.post("/api/auth/companies", json={"name": "Asked"}, headers=person.headers)
        headers = {**person.headers, "Kisum-Company-Id": founded.json()["id"]}
        what = await asked(auth, running.app, running.client, headers)
    assert not what.failures, "\n\n".join(what.failures)


async def test_what_no_document_says_is_found(runtime: Runtime, tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    broken = router(prefix="/api/promoter", tag="broken")

    @broken.get("/undeclared")
    @guard(Public("a test"))
    async def undeclared() -> Live:
        raise HTTPException(418)

    @broken.get("/unexpected")
    @guard(Public("a test"))
    async def unexpected() -> Live:
        raise RuntimeError("nobody expected this")

    @broken.get("/another", response_model=Live)
    @guard(Public("a test"))
    async def another() -> JSONResponse:
        return JSONResponse({"status": 1})

    service = replace(SERVICES["promoter"], routers=(broken,))
    async with called_service(runtime, service, tmp_path) as called:
        person = await called.person()
        what = await asked(service, called.app, called.client, person.headers)
    for check, path in (
        ("status_code_conformance", "undeclared"),
        ("not_a_server_error", "unexpected"),
        ("response_schema_conformance", "another"),
    ):
        assert [each for each in what.failures if check in each and f"/api/promoter/{path}" in each]
