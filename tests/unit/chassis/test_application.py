"""What an application does around its handlers, without a socket and without a server."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import structlog.testing
from fastapi import APIRouter, FastAPI

from chassis.application import IncompleteServiceError, build_app
from chassis.health import Live
from chassis.preconditions import IfMatch
from chassis.request import Caller
from chassis.routing import RouteWithoutGuardError, router
from chassis.service import Service
from chassis.settings import SettingsError, read_settings
from contracts.errors import DomainError, Kind
from contracts.problems import Problem
from middleware.guards import ActiveMember, Public, SignedIn, guard
from services.auth.app import service as auth
from services.auth.settings import AuthSettings
from tests.harness.services import ENCRYPTION_KEY, ROOT_KEY

SETTINGS: Mapping[str, Any] = {
    "database_url": "postgresql://auth:secret-password@127.0.0.1:1/auth",
    "kafka_bootstrap_servers": "127.0.0.1:1",
    "kafka_username": "auth",
    "kafka_password": "secret-password",
    "token_issuer": "test",
    "token_audience": "kisum",
    "root_private_key": ROOT_KEY,
    "key_encryption_key": ENCRYPTION_KEY,
}


class RefusedError(DomainError):
    code = "refused_for_test"
    title = "Refused"

    def __init__(self, kind: Kind) -> None:
        super().__init__("because of the test")
        self.__class__.kind = kind

    kind = Kind.INVALID


@asynccontextmanager
async def client_of(*routers: APIRouter) -> AsyncIterator[httpx.AsyncClient]:
    app = application(*routers)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client,
    ):
        yield client


def application(*routers: APIRouter, **changed: Any) -> FastAPI:
    service: Service[AuthSettings] = replace(auth, routers=routers, **changed)
    return build_app(service, AuthSettings(**SETTINGS))


def test_a_route_without_a_guard_refuses_to_start_and_is_named() -> None:
    bare = router(prefix="/api/auth", tag="test")

    @bare.delete("/everything")
    async def everything() -> None: ...

    with pytest.raises(RouteWithoutGuardError, match="DELETE /api/auth/everything"):
        application(bare)


def test_a_route_of_another_class_refuses_to_start_even_with_a_guard() -> None:
    foreign = APIRouter(prefix="/api/auth")

    @foreign.get("/open")
    @guard(SignedIn())
    async def open_door() -> None: ...

    with pytest.raises(RouteWithoutGuardError, match="GET /api/auth/open"):
        application(foreign)


def test_a_service_without_a_token_verifier_refuses_to_start() -> None:
    with pytest.raises(IncompleteServiceError):
        application(compose=lambda *_: {})


@pytest.mark.parametrize("kind", Kind)
async def test_every_kind_of_refusal_has_one_status_and_a_problem_body(kind: Kind) -> None:
    refusing = router(prefix="/api/auth", tag="test")

    @refusing.get("/refuse")
    @guard(Public("test"))
    async def refuse() -> None:
        raise RefusedError(kind)

    expected = {
        Kind.MALFORMED: 400,
        Kind.INVALID: 422,
        Kind.NOT_FOUND: 404,
        Kind.CONFLICT: 409,
        Kind.PRECONDITION_FAILED: 412,
        Kind.PRECONDITION_REQUIRED: 428,
        Kind.REFUSED: 403,
        Kind.UNAUTHENTICATED: 401,
        Kind.TOO_MANY: 429,
        Kind.UNAVAILABLE: 503,
    }
    async with client_of(refusing) as client:
        answer = await client.get("/api/auth/refuse")
    problem = Problem.model_validate_json(answer.content)
    assert answer.status_code == problem.status == expected[kind]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (problem.code, problem.detail) == ("refused_for_test", "because of the test")
    assert problem.request_id == answer.headers["Kisum-Request-Id"]
    assert ("Retry-After" in answer.headers) == (kind in {Kind.UNAVAILABLE, Kind.TOO_MANY})


async def test_an_unexpected_exception_is_a_500_that_tells_nothing_and_a_log_line_that_tells_where() -> None:
    failing = router(prefix="/api/auth", tag="test")

    @failing.get("/fail")
    @guard(Public("test"))
    async def fail() -> None:
        raise ZeroDivisionError("the inner secret")

    with structlog.testing.capture_logs() as lines:
        async with client_of(failing) as client:
            answer = await client.get("/api/auth/fail")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    failures = [line for line in lines if line["event"] == "request failed unexpectedly"]
    assert [line["request_id"] for line in failures] == [answer.json()["request_id"]]


async def test_a_path_that_differs_by_its_last_slash_is_no_route_and_no_redirect() -> None:
    guarded = router(prefix="/api/auth", tag="test")

    @guarded.post("/write")
    @guard(SignedIn())
    async def write() -> None: ...

    async with client_of(guarded) as client:
        answer = await client.post("/api/auth/write/", headers={"Host": "elsewhere.test"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_guarded_handler_does_not_run_for_a_caller_without_a_token() -> None:
    ran = []
    guarded = router(prefix="/api/auth", tag="test")

    @guarded.post("/write")
    @guard(SignedIn())
    async def write(caller: Caller, body: dict[str, str]) -> None:
        ran.append((caller, body))

    async with client_of(guarded) as client:
        answers = [await client.post("/api/auth/write", content=body) for body in (b"{}", b"{", b"\xff")]
    assert [answer.json()["code"] for answer in answers] == ["token_missing"] * 3
    assert ran == []


async def test_a_handler_that_reads_the_caller_behind_a_public_guard_is_a_bug_and_not_a_way_in() -> None:
    careless = router(prefix="/api/auth", tag="test")

    @careless.get("/who")
    @guard(Public("test"))
    async def who(caller: Caller) -> str:
        return str(caller.user_id)

    async with client_of(careless) as client:
        assert (await client.get("/api/auth/who")).status_code == 500


async def test_each_request_is_one_log_line_with_the_fields_an_operator_searches_by() -> None:
    quiet = router(prefix="/api/auth", tag="test")

    @quiet.get("/things/{thing}")
    @guard(Public("test"))
    async def read_thing(thing: str) -> str:
        return thing

    with structlog.testing.capture_logs() as lines:
        async with client_of(quiet) as client:
            answer = await client.get("/api/auth/things/private-name?mail=ada@example.com")
    (line,) = (line for line in lines if line["event"] == "request")
    assert line == {
        "event": "request",
        "log_level": "info",
        "service": "auth",
        "request_id": answer.headers["Kisum-Request-Id"],
        "user_id": None,
        "company_id": None,
        "endpoint": "/api/auth/things/{thing}",
        "method": "GET",
        "action": "read_thing",
        "status": 200,
        "result": "done",
        "reason": None,
        "revision": None,
        "age_seconds": None,
    }


async def test_what_nobody_serves_is_a_problem_too() -> None:
    async with client_of() as client:
        unknown, wrong_method = await client.get("/api/auth/nothing"), await client.post("/api/auth/livez")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (wrong_method.status_code, wrong_method.json()["code"]) == (405, "method_not_allowed")
    assert wrong_method.headers["Allow"] == "GET"


async def test_without_its_dependencies_a_service_lives_and_says_what_is_away() -> None:
    async with client_of(*auth.routers) as client:
        alive, ready = await client.get("/api/auth/livez"), await client.get("/api/auth/readyz")
        signing_up = await client.post(
            "/api/auth/users", json={"email": "a@example.com", "password": "long enough it is", "display_name": "A"}
        )
    assert alive.json() == {"status": "live"}
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert "postgres: the database cannot be reached" in ready.json()["detail"]
    assert "kafka: kafka cannot be reached" in ready.json()["detail"]
    assert (signing_up.status_code, signing_up.json()["code"]) == (503, "database_unavailable")
    assert signing_up.headers["Retry-After"] == "1"


async def test_the_documentation_works_without_any_other_host() -> None:
    async with client_of(*auth.routers) as client:
        page = await client.get("/api/auth/docs")
        links = [part.split('"')[0] for part in page.text.split('src="')[1:] + page.text.split('href="')[1:]]
        assert links
        for link in links:
            assert link.startswith("/api/auth/docs/")
            assert (await client.get(link)).status_code == 200
        schema = (await client.get("/api/auth/openapi.json")).json()
    assert schema["paths"]["/api/auth/token"]["post"]["responses"]["401"]
    assert "Problem" in schema["components"]["schemas"]


async def test_the_document_tells_what_a_guard_and_a_handler_ask_for_before_they_do_anything() -> None:
    documented = router(prefix="/api/auth", tag="test")

    @documented.post("/members")
    @guard(ActiveMember())
    async def members(body: Live, expected: IfMatch, name: str | None = None) -> None: ...

    @documented.get("/members")
    @guard(Public("a test"))
    async def everybody() -> None: ...

    async with client_of(documented) as client:
        document = (await client.get("/api/auth/openapi.json")).json()
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])
    operations = document["paths"]["/api/auth/members"]
    guarded = operations["post"]
    assert set(guarded["responses"]) == {"200", "400", "401", "403", "413", "422", "503"}
    assert {*guarded["responses"]["422"]["content"]} == {"application/problem+json"}
    assert guarded["security"] == [{"token": []}]
    parameters = {each["name"]: each for each in guarded["parameters"]}
    assert {name for name, each in parameters.items() if each["required"]} == {"if-match", "Kisum-Company-Id"}
    assert parameters["name"]["schema"]["type"] == "string"
    assert re.fullmatch(parameters["if-match"]["schema"]["pattern"], '"7"')
    assert set(operations["get"]["responses"]) == {"200", "400"}
    assert not {"security", "parameters"} & set(operations["get"])


async def test_a_wrong_method_is_told_every_method_of_the_path() -> None:
    several = router(prefix="/api/auth", tag="test")

    @several.get("/things/{thing_id}")
    @guard(Public("a test"))
    async def read(thing_id: str) -> None: ...

    @several.patch("/things/{thing_id}")
    @guard(Public("a test"))
    async def change(thing_id: str) -> None: ...

    async with client_of(several) as client:
        assert (await client.delete("/api/auth/things/1")).headers["Allow"] == "GET, PATCH"


def test_a_missing_or_wrong_setting_is_named_without_its_value() -> None:
    wrong = {**SETTINGS, "root_private_key": "secret but short"}
    del wrong["token_issuer"]
    with pytest.raises(SettingsError) as refused:
        read_settings(AuthSettings, **wrong)
    assert "KISUM_AUTH_TOKEN_ISSUER: Field required" in str(refused.value)
    assert "KISUM_AUTH_ROOT_PRIVATE_KEY" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_settings_show_no_secret() -> None:
    assert "secret-password" not in repr(AuthSettings(**SETTINGS))
    assert ROOT_KEY not in json.dumps(AuthSettings(**SETTINGS).model_dump(mode="json"))
