"""Read your own write: Core names what it published."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from services.entitlements.app import service
from tests.harness.revisions import Write, published_by, write_routes
from tests.harness.runtime import Runtime
from tests.integration.entitlements.calling import CalledService, Person, called_service
from tests.integration.entitlements.test_http import start_trial


@pytest_asyncio.fixture(loop_scope="session")
async def core(runtime: Runtime, tmp_path: Path) -> AsyncIterator[CalledService]:
    async with called_service(runtime, service, tmp_path) as called:
        yield called


Scenario = Callable[[CalledService, Person, Person], Awaitable[httpx.Response]]


async def _suspend(core: CalledService, admin: Person, owner: Person) -> httpx.Response:
    path = f"/api/entitlements/companies/{owner.company_id}/suspend"
    return await core.client.post(path, headers=admin.headers)


async def _restore(core: CalledService, admin: Person, owner: Person) -> httpx.Response:
    await _suspend(core, admin, owner)
    path = f"/api/entitlements/companies/{owner.company_id}/restore"
    return await core.client.post(path, headers=admin.headers)


SCENARIOS: dict[Write, Scenario] = {
    ("POST", "/companies/{company_id}/suspend"): _suspend,
    ("POST", "/companies/{company_id}/restore"): _restore,
}


@pytest.mark.parametrize("write", sorted(write_routes(service)), ids=" ".join)
async def test_every_write_names_what_it_published(core: CalledService, write: Write) -> None:
    assert write in SCENARIOS, "a new route that writes: add how it is called"
    admin, owner = await core.platform_admin(), await core.person(superadmin=True)
    await start_trial(core, owner.company_id)
    published, named, answer = await published_by(core.database, lambda: SCENARIOS[write](core, admin, owner))
    assert answer.status_code < 300, answer.text
    assert set(named) == published
    assert 1 <= len(named) <= 8


def test_no_scenario_is_of_a_route_that_is_gone() -> None:
    assert set(SCENARIOS) == write_routes(service)
