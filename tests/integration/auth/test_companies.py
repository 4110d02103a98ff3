import pytest
from sqlalchemy import select

from contracts.identifiers import PLATFORM_COMPANY_ID
from infra.postgres.database import Database
from services.auth.companies.tables import Company
from services.auth.memberships.operations import add_platform_admin
from services.auth.memberships.tables import Membership
from services.auth.users.rules import UserUnknownError
from tests.harness.runtime import Runtime
from tests.harness.services import RunningService
from tests.integration.auth.people import signed_in_person


async def test_who_founds_a_company_is_its_superadmin_and_nobody_else_sees_it(auth: RunningService) -> None:
    founder, stranger = await signed_in_person(auth), await signed_in_person(auth)
    answer = await auth.client.post("/api/auth/companies", json={"name": "Live Nation of Two"}, headers=founder.headers)
    assert answer.status_code == 201
    own = (await auth.client.get("/api/auth/me/companies", headers=founder.headers)).json()
    assert own == [
        {
            "company_id": answer.json()["id"],
            "company_name": "Live Nation of Two",
            "status": "active",
            "superadmin": True,
        }
    ]
    assert (await auth.client.get("/api/auth/me/companies", headers=stranger.headers)).json() == []


async def test_a_company_without_a_name_is_refused(auth: RunningService) -> None:
    founder = await signed_in_person(auth)
    answer = await auth.client.post("/api/auth/companies", json={"name": "  "}, headers=founder.headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/name")


async def test_the_platform_company_is_seeded_under_its_reserved_id(auth: RunningService, runtime: Runtime) -> None:
    database = Database(auth.database.url(runtime.administrator_url), application_name="test")
    async with database.unit_of_work() as work:
        assert await work.scalar(select(Company.name).where(Company.id == PLATFORM_COMPANY_ID)) == "Kisum platform"
    await database.close()


async def test_a_platform_admin_is_added_once_and_reinstated_with_a_new_version(
    auth: RunningService, runtime: Runtime
) -> None:
    person = await signed_in_person(auth)
    database = Database(auth.database.url(runtime.administrator_url), application_name="test")

    async def add() -> bool:
        async with database.unit_of_work() as work:
            return (await add_platform_admin(work, email=person.email, now=auth.clock())).was_one_before

    assert [await add(), await add()] == [False, True]
    async with database.unit_of_work() as work:
        membership = await work.get_one(Membership, (PLATFORM_COMPANY_ID, person.id))
        membership.status, membership.superadmin, membership.version = "removed", False, 2
    assert await add() is False
    async with database.unit_of_work() as work:
        membership = await work.get_one(Membership, (PLATFORM_COMPANY_ID, person.id))
        assert (membership.status, membership.version) == ("active", 3)
    await database.close()


async def test_nobody_becomes_platform_admin_without_an_account(auth: RunningService, runtime: Runtime) -> None:
    database = Database(auth.database.url(runtime.administrator_url), application_name="test")
    with pytest.raises(UserUnknownError):
        async with database.unit_of_work() as work:
            await add_platform_admin(work, email="nobody@example.com", now=auth.clock())
    await database.close()
