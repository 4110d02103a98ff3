"""Who may ask what, and what they are told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from contracts.envelope import envelop
from contracts.identifiers import CompanyId, new_id
from services.entitlements.app import service
from services.entitlements.companies.operations import record_fact
from services.entitlements.jobs import publish_catalog
from tests.harness.runtime import Runtime
from tests.integration.entitlements.calling import CalledService, called_service
from tests.integration.entitlements.published import pending
from tests.unit.entitlements.purchases import START, trial


@pytest_asyncio.fixture(loop_scope="session")
async def core(runtime: Runtime, tmp_path: Path) -> AsyncIterator[CalledService]:
    async with called_service(runtime, service, tmp_path) as called:
        yield called


async def start_trial(core: CalledService, company_id: CompanyId) -> None:
    fact = envelop(
        trial("one", "basic_promoter", "finance"),
        occurred_at=START,
        company_id=company_id,
        actor_user_id=None,
        epoch=1,
        version=1,
        correlation_id=new_id(),
    )
    async with core.database.unit_of_work() as work:
        await record_fact(work, fact, now=START)


async def test_anybody_sees_packages_and_prices(core: CalledService) -> None:
    offers = (await core.client.get("/api/entitlements/packages")).json()
    promoter = next(each for each in offers["packages"] if each["key"] == "basic_promoter")
    assert (promoter["trial_days"], promoter["base_module"]) == (7, "promoter")
    assert promoter["prices"] == [{"amount_minor": 19900, "currency": "USD", "interval": "month", "placeholder": False}]
    assert [each["key"] for each in offers["addons"]] == [
        "ai_sales_report",
        "live_ticket_sales",
        "vendor_directory",
        "venue_directory",
    ]


async def test_modules_are_for_members_only(core: CalledService) -> None:
    assert (await core.client.get("/api/entitlements/modules")).status_code == 401
    member = await core.person()
    modules = (await core.client.get("/api/entitlements/modules", headers=member.headers)).json()
    assert {each["key"]: each["compatible_bases"] for each in modules}["touring"] == ["artist", "promoter"]


async def test_a_member_sees_what_the_company_is_entitled_to(core: CalledService) -> None:
    member = await core.person()
    await start_trial(core, member.company_id)
    answer = await core.client.get(f"/api/entitlements/companies/{member.company_id}", headers=member.headers)
    body = answer.json()
    assert (answer.status_code, body["status"], body["version"]) == (200, "trialing", 1)
    assert body["base"] == {"module": "promoter", "status": "trialing", "valid_until": "2026-05-28T09:00:00Z"}
    assert [each["key"] for each in body["modules"]] == ["promoter", "finance"]
    assert body["kept"] == [{"key": "finance", "valid_until": "2026-05-28T09:00:00Z"}]


@pytest.mark.parametrize("path", ["", "/explain?module=finance"])
async def test_another_company_is_like_one_that_does_not_exist(core: CalledService, path: str) -> None:
    stranger, owner = await core.person(superadmin=True), await core.person()
    await start_trial(core, owner.company_id)
    bodies = []
    for company_id in (owner.company_id, new_id()):
        answer = await core.client.get(f"/api/entitlements/companies/{company_id}{path}", headers=stranger.headers)
        assert answer.status_code == 404
        body = answer.json()
        bodies.append({**body, "request_id": "", "detail": body["detail"].replace(str(company_id), "")})
    assert bodies[0] == bodies[1]


async def test_only_the_company_s_admin_has_a_module_explained(core: CalledService) -> None:
    admin = await core.person(superadmin=True)
    member = await core.person(admin.company_id)
    await start_trial(core, admin.company_id)
    path = f"/api/entitlements/companies/{admin.company_id}/explain"
    assert (await core.client.get(path, params={"module": "ai"}, headers=member.headers)).status_code == 403
    answer = await core.client.get(path, params={"module": "ai"}, headers=admin.headers)
    assert (answer.json()["entitled"], answer.json()["ground"]) == (False, "not_bought")
    unknown = await core.client.get(path, params={"module": "basic"}, headers=admin.headers)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "module_unknown")


async def test_a_platform_admin_suspends_and_restores_and_is_told_the_revision(core: CalledService) -> None:
    owner, admin = await core.person(superadmin=True), await core.platform_admin()
    await start_trial(core, owner.company_id)
    path = f"/api/entitlements/companies/{owner.company_id}"
    assert (await core.client.post(f"{path}/suspend", headers=owner.headers)).status_code == 403
    suspended = await core.client.post(f"{path}/suspend", headers=admin.headers)
    assert (suspended.status_code, suspended.json()["status"], suspended.json()["modules"]) == (200, "suspended", [])
    assert suspended.headers["Kisum-Revision"] == f"entitlements.companies.v1:{owner.company_id}:1:2"
    restored = await core.client.post(f"{path}/restore", headers=admin.headers)
    assert (restored.json()["status"], restored.json()["version"]) == ("trialing", 3)
    unknown = await core.client.post(f"/api/entitlements/companies/{new_id()}/suspend", headers=admin.headers)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "company_unknown")


async def test_the_job_publishes_the_catalog_and_ends(core: CalledService) -> None:
    await publish_catalog({}, core.database, core.clock)
    assert len(await pending(core.database, "entitlements.catalog.v1")) == 32
