"""Read your own write, in a module: its own feed brings what the request waits for."""

import asyncio

import httpx

from contracts.identifiers import new_id
from tests.harness.access import grant
from tests.harness.modules import Person, RunningModule
from tests.harness.waiting import wait_until


async def listing(person: Person, at_least: str) -> httpx.Response:
    return await person.call("GET", "/expenses", headers={"Kisum-At-Least": at_least})


def membership(person: Person, version: int, epoch: int = 1) -> str:
    return f"auth.memberships.v1:{person.company_id}/{person.user_id}:{epoch}:{version}"


async def waiting(finance: RunningModule) -> int:
    transport = finance.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    return len(transport.app.state.chain.revisions._waiting)  # type: ignore[attr-defined]


async def test_a_revocation_that_is_named_is_obeyed_whenever_it_arrives(finance: RunningModule) -> None:
    person = await finance.person()
    for version in range(2, 12):
        permissions = ("finance.expenses.read",) if version % 2 else ()
        asked = asyncio.create_task(listing(person, membership(person, version)))
        await finance.sources.publish(
            grant(person.user_id, permissions=permissions), company_id=person.company_id, version=version
        )
        assert (await asked).status_code == (200 if permissions else 403)


async def test_so_many_wait_for_the_far_future_and_nobody_else_is_kept_waiting(finance: RunningModule) -> None:
    person = await finance.person()
    future = [membership(person, 10**9), membership(person, 1, epoch=2**63 - 1)]
    tasks = [asyncio.create_task(listing(person, future[number % 2])) for number in range(64)]
    await wait_until(lambda: waiting(finance), lambda count: count == 64, describe="all wait")
    one_more = await listing(person, future[0])
    assert (one_more.status_code, one_more.json()["code"]) == (503, "state_unknown")
    assert "64 requests" in one_more.json()["detail"]
    assert one_more.headers["Retry-After"] == "2"
    for _ in range(5):
        assert (await person.call("GET", "/expenses")).status_code == 200
        assert (await listing(person, membership(person, 1))).status_code == 200
    assert await waiting(finance) == 64, "others were served while these waited"
    answers = await asyncio.gather(*tasks)
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "state_unknown")}
    assert await waiting(finance) == 0


async def test_what_cannot_be_waited_for_is_refused_before_anything_is_decided(finance: RunningModule) -> None:
    person = await finance.person(permissions=())
    for named, code in (
        ("7", "revision_malformed"),
        (",".join([membership(person, 1)] * 9), "revision_malformed"),
        (f"entitlements.companies.v1:{new_id()}:1:1", "revision_foreign"),
        (f"auth.sessions.v1:{new_id()}:1:1", "revision_foreign"),
    ):
        answer = await listing(person, named)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
        assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_stranger_waits_for_nothing_and_learns_nothing(finance: RunningModule) -> None:
    person, stranger = await finance.person(), await finance.person()
    bodies = set()
    for company_id in (person.company_id, new_id()):
        for version in (1, 10**9):
            answer = await stranger.call(
                "GET",
                "/expenses",
                company_id=company_id,
                headers={"Kisum-At-Least": f"entitlements.companies.v1:{company_id}:1:{version}"},
            )
            bodies.add((answer.status_code, answer.json()["code"], answer.json()["detail"]))
    assert len(bodies) == 1
    assert next(iter(bodies))[:2] == (403, "not_a_member")
