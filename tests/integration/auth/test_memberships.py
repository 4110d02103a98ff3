"""The routes of memberships and of the permission catalog, as a company's administrator calls them."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from contracts.identifiers import CompanyId, UserId, new_id
from infra.postgres.database import Database
from services.auth.consumers import take_entitlement
from services.auth.memberships.operations import add_platform_admin
from services.auth.memberships.tables import Membership
from tests.harness.services import RunningService
from tests.integration.auth.people import SignedInPerson, signed_in_person
from tests.integration.auth.published import entitled

READ = "finance.expenses.read"


class Office:
    """A company with finance, its founder and a member, called over HTTP."""

    def __init__(self, auth: RunningService, company_id: str, founder: SignedInPerson, member: SignedInPerson) -> None:
        self.auth, self.company_id, self.founder, self.member = auth, company_id, founder, member

    async def call(
        self, method: str, path: str, body: Any = None, *, by: SignedInPerson | None = None, company: str | None = None
    ) -> httpx.Response:
        headers = {**(by or self.founder).headers, "Kisum-Company-Id": company or self.company_id}
        return await self.auth.client.request(method, f"/api/auth{path}", json=body, headers=headers)

    async def of_member(self, method: str, path: str = "", body: Any = None, **named: Any) -> httpx.Response:
        return await self.call(method, f"/memberships/{self.member.id}{path}", body, **named)


async def new_office(auth: RunningService, rows: Database) -> Office:
    founder, member = await signed_in_person(auth), await signed_in_person(auth)
    answer = await auth.client.post("/api/auth/companies", json={"name": "Office"}, headers=founder.headers)
    company_id = answer.json()["id"]
    assert answer.headers["Kisum-Revision"] == f"auth.memberships.v1:{company_id}/{founder.id}:1:1"
    async with rows.unit_of_work() as work:
        await take_entitlement(work, entitled(CompanyId(UUID(company_id)), ("promoter", "finance")))
    office = Office(auth, company_id, founder, member)
    added = await office.call("POST", "/memberships", {"user_id": member.id})
    assert added.status_code == 201, added.text
    assert added.headers["Kisum-Revision"] == f"auth.memberships.v1:{company_id}/{member.id}:1:1"
    return office


@pytest_asyncio.fixture(loop_scope="session")
async def office(shared_auth: RunningService, shared_rows: Database) -> Office:
    return await new_office(shared_auth, shared_rows)


async def test_a_member_is_given_a_module_permissions_and_scopes(office: Office) -> None:
    await office.of_member("PUT", "/modules", {"modules": ["finance"]})
    ends = {READ: None, "finance.expenses.write": "2026-05-21T12:00:00+02:00"}
    await office.of_member("PUT", "/permissions", {"module": "finance", "permissions": ends})
    answer = await office.of_member("PUT", "/scopes", {"module": "finance", "scopes": {"event": "*"}})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Kisum-Revision"] == f"auth.memberships.v1:{office.company_id}/{office.member.id}:1:4"
    expected = {
        "user_id": office.member.id,
        "email": office.member.email,
        "display_name": "Person",
        "status": "active",
        "superadmin": False,
        "modules": [
            {
                "key": "finance",
                "permissions": {READ: None, "finance.expenses.write": "2026-05-21T10:00:00Z"},
                "scopes": {"approval_limit": [], "business_unit": [], "event": "*"},
            }
        ],
        "delegations": [],
        "version": 4,
    }
    assert answer.json() == expected
    assert (await office.of_member("GET")).json() == expected
    members = (await office.call("GET", "/memberships")).json()
    assert (len(members["members"]), members["next"]) == (2, None)
    assert expected in members["members"]


async def test_members_are_listed_page_by_page(office: Office) -> None:
    first = (await office.call("GET", "/memberships?limit=1")).json()
    second = (await office.call("GET", f"/memberships?limit=1&after={first['next']}")).json()
    found = [member["user_id"] for member in first["members"] + second["members"]]
    assert (found, second["next"]) == (sorted([office.founder.id, office.member.id]), None)


@pytest.mark.parametrize("field", ["status", "superadmin"])
async def test_a_standing_is_changed_or_left_out_but_never_taken_away(office: Office, field: str) -> None:
    answer = await office.of_member("PATCH", "", {field: None})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == f"/{field}"
    kept = (await office.of_member("PATCH", "", {})).json()
    assert (kept["status"], kept["superadmin"]) == ("active", False)


async def test_a_member_is_suspended_reinstated_promoted_and_removed(office: Office) -> None:
    for body in ({"status": "suspended"}, {"status": "active"}, {"superadmin": True}):
        answer = await office.of_member("PATCH", "", body)
        assert answer.status_code == 200, answer.text
        assert answer.json().items() >= body.items()
    gone = await office.call("DELETE", f"/memberships/{office.founder.id}", by=office.member)
    assert gone.status_code == 204
    assert gone.headers["Kisum-Revision"].startswith(f"auth.memberships.v1:{office.company_id}/{office.founder.id}:1:")
    listed = (await office.call("GET", "/memberships", by=office.member)).json()["members"]
    assert [member["user_id"] for member in listed] == [office.member.id]
    # The rows decide at once: who was removed a moment ago has lost the guard.
    refused = await office.call("GET", "/memberships")
    assert (refused.status_code, refused.json()["code"]) == (403, "membership_inactive")
    back = await office.call("POST", "/memberships", {"email": office.founder.email.upper()}, by=office.member)
    assert (back.status_code, back.json()["modules"], back.json()["superadmin"]) == (201, [], False)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"status": "suspended"}),
        ("DELETE", "", None),
        ("PUT", "/modules", {"modules": ["finance"]}),
        ("PUT", "/permissions", {"module": "finance", "permissions": {READ: None}}),
        ("PUT", "/scopes", {"module": "finance", "scopes": {"event": "*"}}),
    ],
)
async def test_another_companys_member_and_an_unknown_one_are_one_404(
    office: Office, shared_rows: Database, method: str, path: str, body: Any
) -> None:
    other = await new_office(office.auth, shared_rows)
    answers = [
        await office.call(method, f"/memberships/{user_id}{path}", body) for user_id in (other.member.id, uuid4())
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    bodies = [{**answer.json(), "request_id": None} for answer in answers]
    assert bodies[0] == bodies[1]
    assert "Kisum-Revision" not in answers[0].headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/memberships"),
        ("POST", "/memberships"),
        ("GET", "/memberships/{id}"),
        ("PATCH", "/memberships/{id}"),
        ("DELETE", "/memberships/{id}"),
        ("PUT", "/memberships/{id}/modules"),
        ("PUT", "/memberships/{id}/permissions"),
        ("PUT", "/memberships/{id}/scopes"),
    ],
)
async def test_only_an_administrator_of_this_company_comes_in(
    office: Office, shared_rows: Database, method: str, path: str
) -> None:
    other = await new_office(office.auth, shared_rows)
    path = path.replace("{id}", office.member.id)
    member = await office.call(method, path, {}, by=office.member)
    assert (member.status_code, member.json()["code"]) == (403, "permission_missing")
    stranger = await office.call(method, path, {}, by=other.founder)
    unknown = await office.call(method, path, {}, by=other.founder, company=str(new_id()))
    assert (stranger.status_code, stranger.json()["code"]) == (403, "not_a_member")
    assert {**stranger.json(), "request_id": None} == {**unknown.json(), "request_id": None}


async def test_an_administrator_changes_nothing_of_their_own_and_the_last_one_stays(office: Office) -> None:
    own = f"/memberships/{office.founder.id}"
    grants: list[tuple[str, Any]] = [
        ("/modules", {"modules": []}),
        ("/permissions", {"module": "finance", "permissions": {}}),
        ("/scopes", {"module": "finance", "scopes": {}}),
    ]
    for path, body in grants:
        answer = await office.call("PUT", own + path, body)
        assert (answer.status_code, answer.json()["code"]) == (403, "own_grant")
    standings: list[tuple[str, Any]] = [
        ("DELETE", None),
        ("PATCH", {"status": "suspended"}),
        ("PATCH", {"superadmin": False}),
    ]
    for method, body in standings:
        answer = await office.call(method, own, body)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_superadmin")


def finance(permissions: dict[str, Any]) -> dict[str, Any]:
    return {"module": "finance", "permissions": permissions}


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/modules", {"modules": ["venue"]}, (409, "module_not_eligible")),
        ("/modules", {"modules": ["basic"]}, (422, "module_unknown")),
        ("/modules", {"modules": "finance"}, (422, "invalid_request")),
        ("/permissions", finance({"finance.write": None}), (422, "permission_key_too_short")),
        ("/permissions", finance({"finance.nothing.read": None}), (422, "permission_unknown")),
        ("/permissions", finance({"finance.expense.view": None}), (422, "permission_deprecated")),
        ("/permissions", finance({READ: "2026-05-21T09:00:00Z"}), (422, "grant_ended")),
        ("/permissions", finance({READ: "2027-01-01T00:00:00"}), (422, "invalid_request")),
        ("/permissions", finance({READ: 1893456000}), (422, "invalid_request")),
        ("/permissions", {"module": "finance", "permissions": {READ: None}, "user": "me"}, (422, "invalid_request")),
        ("/permissions", {"module": "promoter", "permissions": {}}, (409, "member_without_module")),
        ("/scopes", {"module": "finance", "scopes": {"venue": "*"}}, (422, "scope_type_undeclared")),
        ("/scopes", {"module": "finance", "scopes": {"event": "all"}}, (422, "invalid_request")),
        ("/scopes", {"module": "finance", "scopes": {"event": ["a b"]}}, (422, "invalid_request")),
        ("/scopes", {"module": "finance", "scopes": {"approval_limit": ["5000"]}}, (422, "scope_limit_malformed")),
    ],
)
async def test_a_grant_that_breaks_a_rule_is_refused_by_name(
    office: Office, path: str, body: Any, code: tuple[int, str]
) -> None:
    await office.of_member("PUT", "/modules", {"modules": ["finance"]})
    answer = await office.of_member("PUT", path, body)
    assert (answer.status_code, answer.json()["code"]) == code
    assert (await office.of_member("GET")).json()["version"] == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, (422, "invalid_request")),
        ({"user_id": str(new_id()), "email": "a@example.com"}, (422, "invalid_request")),
        ({"user_id": str(new_id())}, (404, "user_unknown")),
        ({"email": "nobody@example.com"}, (404, "user_unknown")),
    ],
)
async def test_only_a_person_who_signed_up_becomes_a_member(office: Office, body: Any, code: tuple[int, str]) -> None:
    answer = await office.call("POST", "/memberships", body)
    assert (answer.status_code, answer.json()["code"]) == code


async def test_a_person_added_twice_at_once_is_added_once(office: Office) -> None:
    person = await signed_in_person(office.auth)
    answers = await asyncio.gather(*(office.call("POST", "/memberships", {"user_id": person.id}) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]


@pytest.mark.parametrize("end", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_an_end_beyond_the_calendar_in_utc_is_refused(office: Office, end: str) -> None:
    answer = await office.of_member("PUT", "/permissions", {"module": "finance", "permissions": {READ: end}})
    assert (answer.status_code, answer.json()["errors"][0]["rule"]) == (422, "moment")


async def test_the_catalog_of_a_module_whose_name_can_be_none_is_refused(office: Office) -> None:
    answer = await office.call("GET", "/permissions?module=finance%00")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_the_catalog_is_read_by_members_whole_or_by_module(office: Office) -> None:
    everything = (await office.call("GET", "/permissions", by=office.member)).json()
    finance = (await office.call("GET", "/permissions?module=finance", by=office.member)).json()
    assert finance == [row for row in everything if row["module"] == "finance"]
    assert sum(row["status"] == "active" for row in everything) == 105
    assert finance[0] == {
        "module": "finance",
        "key": READ,
        "label": "See expenses",
        "scope_types": ["business_unit", "event"],
        "capability": None,
        "alias_of": None,
        "status": "active",
        "administration": False,
    }
    unknown = await office.call("GET", "/permissions?module=basic", by=office.member)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "module_unknown")


async def test_platform_admins_administer_the_platform_company(office: Office, shared_rows: Database) -> None:
    platform = "00000000-0000-7000-8000-000000000001"
    async with shared_rows.unit_of_work() as work:
        await add_platform_admin(work, email=office.founder.email, now=office.auth.clock())
    answer = await office.call("POST", "/memberships", {"user_id": office.member.id}, company=platform)
    assert answer.status_code == 201
    async with shared_rows.unit_of_work() as work:
        membership = await work.get_one(Membership, (UUID(platform), UserId(UUID(office.member.id))))
        assert (membership.status, membership.superadmin) == ("active", False)
