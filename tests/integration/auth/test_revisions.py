"""Read your own write: Auth names what it published, and is asked for states like everybody."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from chassis.application import build_app
from contracts.identifiers import CompanyId, new_id
from infra.postgres.database import Database
from services.auth.app import service
from services.auth.consumers import take_entitlement
from tests.harness.revisions import Write, published_by, write_routes
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.integration.auth.people import PASSWORD
from tests.integration.auth.published import entitled
from tests.unit.chassis.test_application import SETTINGS


@dataclass
class World:
    """An administrator of a company with finance, and a member who has the module."""

    client: httpx.AsyncClient
    database: Database
    tokens: dict[str, str]
    company_id: str
    member: str

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        given = {"Authorization": f"Bearer {self.tokens['access_token']}", "Kisum-Company-Id": self.company_id}
        return await self.client.request(method, f"/api/auth{path}", json=body, headers={**given, **headers})

    async def of_member(self, method: str, path: str = "", body: Any = None) -> httpx.Response:
        return await self.call(method, f"/memberships/{self.member}{path}", body)

    async def person(self) -> dict[str, Any]:
        person: dict[str, Any] = (await sign_up(self.client)).json()
        return person

    async def own_session(self) -> str:
        """Of another sign-in than the one that calls."""
        email = (await self.person())["email"]
        self.tokens = (await sign_in(self.client, email)).json()
        return str((await self.call("GET", "/sessions")).json()[0]["id"])


async def sign_up(client: httpx.AsyncClient) -> httpx.Response:
    body = {"email": f"{new_id()}@example.com", "password": PASSWORD, "display_name": "Person"}
    return await client.post("/api/auth/users", json=body)


async def sign_in(client: httpx.AsyncClient, email: str) -> httpx.Response:
    return await client.post("/api/auth/token", json={"email": email, "password": PASSWORD})


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def served(runtime: Runtime) -> AsyncIterator[tuple[httpx.AsyncClient, Database]]:
    """Auth without its relay: what it publishes stays in the outbox."""
    created = await service_database(runtime, service)
    url = created.url(runtime.administrator_url)
    app = build_app(service, service.settings.model_validate({**SETTINGS, "database_url": url}))
    database = Database(url, application_name="test")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield client, database
    await database.close()
    await app.state.database.close()


@pytest.fixture
async def world(served: tuple[httpx.AsyncClient, Database]) -> World:
    client, database = served
    founder, member = (await sign_up(client)).json(), (await sign_up(client)).json()
    found = World(client, database, (await sign_in(client, founder["email"])).json(), "", member["id"])
    found.company_id = (await found.call("POST", "/companies", {"name": "Company"})).json()["id"]
    async with database.unit_of_work() as work:
        await take_entitlement(work, entitled(CompanyId(UUID(found.company_id)), ("promoter", "finance")))
    await found.call("POST", "/memberships", {"user_id": found.member})
    await found.of_member("PUT", "/modules", {"modules": ["finance"]})
    return found


Scenario = Callable[[World], Awaitable[httpx.Response]]


async def _sign_up(world: World) -> httpx.Response:
    return await sign_up(world.client)


async def _sign_in(world: World) -> httpx.Response:
    return await sign_in(world.client, (await world.person())["email"])


async def _refresh(world: World) -> httpx.Response:
    return await world.call("POST", "/refresh", {"refresh_token": world.tokens["refresh_token"]})


async def _sign_out(world: World) -> httpx.Response:
    return await world.call("POST", "/logout", {"refresh_token": world.tokens["refresh_token"]})


async def _end_session(world: World) -> httpx.Response:
    return await world.call("DELETE", f"/sessions/{await world.own_session()}")


async def _add_member(world: World) -> httpx.Response:
    return await world.call("POST", "/memberships", {"user_id": (await world.person())["id"]})


#: Routes that change no state anybody is told of.
PUBLISH_NOTHING: dict[Write, Scenario] = {
    ("POST", "/users"): _sign_up,
    ("POST", "/token"): _sign_in,
    ("POST", "/refresh"): _refresh,
}
PUBLISH: dict[Write, Scenario] = {
    ("POST", "/logout"): _sign_out,
    ("DELETE", "/sessions/{session_id}"): _end_session,
    ("POST", "/companies"): lambda world: world.call("POST", "/companies", {"name": "Another"}),
    ("POST", "/memberships"): _add_member,
    ("PATCH", "/memberships/{user_id}"): lambda world: world.of_member("PATCH", "", {"status": "suspended"}),
    ("DELETE", "/memberships/{user_id}"): lambda world: world.of_member("DELETE"),
    ("PUT", "/memberships/{user_id}/modules"): lambda world: world.of_member("PUT", "/modules", {"modules": []}),
    ("PUT", "/memberships/{user_id}/permissions"): lambda world: world.of_member(
        "PUT", "/permissions", {"module": "finance", "permissions": {"finance.expenses.read": None}}
    ),
    ("PUT", "/memberships/{user_id}/scopes"): lambda world: world.of_member(
        "PUT", "/scopes", {"module": "finance", "scopes": {"event": "*"}}
    ),
}
SCENARIOS = {**PUBLISH_NOTHING, **PUBLISH}


@pytest.mark.parametrize("write", sorted(write_routes(service)), ids=" ".join)
async def test_every_write_names_what_it_published(world: World, write: Write) -> None:
    assert write in SCENARIOS, "a new route that writes: add how it is called, and whether it publishes"
    published, named, answer = await published_by(world.database, lambda: SCENARIOS[write](world))
    assert answer.status_code < 300, answer.text
    assert set(named) == published
    assert len(named) <= 8
    assert bool(named) == (write in PUBLISH)


def test_no_scenario_is_of_a_route_that_is_gone() -> None:
    assert set(SCENARIOS) == write_routes(service)


# Auth is asked for states too, and compares them with its rows.


async def at_least(world: World, revision: str) -> httpx.Response:
    return await world.call("GET", "/memberships", **{"Kisum-At-Least": revision})


async def test_what_auth_itself_published_is_there_at_once(world: World) -> None:
    changed = await world.of_member("PATCH", "", {"superadmin": True})
    assert (await at_least(world, changed.headers["Kisum-Revision"])).status_code == 200
    email = (await world.call("GET", f"/memberships/{world.member}")).json()["email"]
    world.tokens = (await sign_in(world.client, email)).json()
    ended = (await world.call("POST", "/logout", {"refresh_token": world.tokens["refresh_token"]})).headers
    world.tokens = (await sign_in(world.client, email)).json()
    assert (await at_least(world, ended["Kisum-Revision"])).status_code == 200


async def test_a_state_of_core_is_there_once_auth_has_it(world: World) -> None:
    assert (await at_least(world, f"entitlements.companies.v1:{world.company_id}:1:1")).status_code == 200


async def test_a_state_of_the_far_future_is_503(world: World) -> None:
    subjects = (
        f"entitlements.companies.v1:{world.company_id}",
        f"auth.memberships.v1:{world.company_id}/{world.member}",
        "auth.permissions.v1:ai",
    )
    for answer in await asyncio.gather(*(at_least(world, f"{subject}:1:{10**12}") for subject in subjects)):
        assert (answer.status_code, answer.json()["code"]) == (503, "state_unknown")
        assert answer.headers["Retry-After"] == "2"


@pytest.mark.parametrize("subject", ["entitlements.companies.v1:{other}", "auth.memberships.v1:{other}/{member}"])
async def test_a_state_of_another_company_is_400(world: World, subject: str) -> None:
    answer = await at_least(world, f"{subject.format(other=new_id(), member=world.member)}:1:1")
    assert (answer.status_code, answer.json()["code"]) == (400, "revision_foreign")


async def test_who_is_no_member_is_told_the_same_of_every_company(world: World) -> None:
    """Whatever Core has told of it, and without waiting."""
    stranger = (await sign_up(world.client)).json()
    tokens = (await sign_in(world.client, stranger["email"])).json()
    codes = set()
    for company_id in (world.company_id, str(new_id())):
        for version in (1, 10**12):
            visiting = World(world.client, world.database, tokens, company_id, world.member)
            answer = await at_least(visiting, f"entitlements.companies.v1:{company_id}:1:{version}")
            codes.add((answer.status_code, answer.json()["code"]))
    assert codes == {(403, "not_a_member")}
