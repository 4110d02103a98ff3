"""Who decides about expenses and bills: somebody else, within a limit that was set in Auth."""

from typing import Any

import pytest

from tests.harness.modules import Person, RunningModule
from tests.integration.finance.test_bills import BILL
from tests.integration.finance.test_expenses import EXPENSE, SAID, approver

SUBJECTS = {"expenses": EXPENSE, "bills": BILL}


async def waiting(person: Person, resource: str, submitter: Person | None = None, **changed: Any) -> str:
    """The path of something that waits for a decision."""
    added = await person.call("POST", f"/{resource}", json={**SUBJECTS[resource], **changed})
    assert added.status_code == 201, added.text
    path = f"/{resource}/{added.json()['id']}"
    if resource == "expenses":
        submitted = await (submitter or person).call("POST", f"{path}/submit", headers={"If-Match": "*"})
        assert submitted.status_code == 200, submitted.text
    return path


async def decide(person: Person, path: str, name: str = "approve") -> Any:
    said = SAID["reject"] if name == "reject" else None
    return await person.call("POST", f"{path}/{name}", headers={"If-Match": "*"}, json=said)


async def read(person: Person, path: str) -> Any:
    return (await person.call("GET", path)).json()


@pytest.mark.parametrize("resource", SUBJECTS)
async def test_who_created_it_does_not_approve_it_whatever_they_may(finance: RunningModule, resource: str) -> None:
    person = await finance.person()
    creator = await approver(finance, person)
    path = await waiting(creator, resource, submitter=person)
    before = await read(person, path)
    refused = await decide(creator, path)
    assert (refused.status_code, refused.json()["code"]) == (409, "four_eyes")
    assert await read(person, path) == before
    assert (await decide(await approver(finance, person), path)).json()["state"] == "approved"


@pytest.mark.parametrize("name", ["approve", "reject"])
async def test_who_submitted_it_does_not_decide_about_it(finance: RunningModule, name: str) -> None:
    person = await finance.person()
    submitter = await approver(finance, person)
    path = await waiting(person, "expenses", submitter=submitter)
    refused = await decide(submitter, path, name)
    assert (refused.status_code, refused.json()["code"]) == (409, "four_eyes")
    assert (await read(person, path))["state"] == "submitted"


async def test_who_changed_a_bill_does_not_approve_what_they_made_of_it(finance: RunningModule) -> None:
    person = await finance.person()
    editor = await approver(finance, person)
    path = await waiting(person, "bills")
    await editor.call("PATCH", path, headers={"If-Match": "*"}, json={"amount": "999999"})
    refused = await decide(editor, path)
    assert (refused.status_code, refused.json()["code"]) == (409, "four_eyes")
    assert (await decide(await approver(finance, person), path)).json()["state"] == "approved"


@pytest.mark.parametrize("resource", SUBJECTS)
async def test_over_the_limit_the_refusal_names_the_limit_it_takes(finance: RunningModule, resource: str) -> None:
    person = await finance.person()
    path = await waiting(person, resource, amount="1200.50", currency="USD")
    before = await read(person, path)
    for limits in (("USD:120049",), ("EUR:999999999",), (), None):
        decider = (
            await approver(finance, person, limits) if limits is not None else await finance.person(person.company_id)
        )
        refused = await decide(decider, path)
        assert (refused.status_code, refused.json()["code"]) == (403, "out_of_scope")
        assert (refused.json()["limit"], refused.json()["permission"]) == ("USD:120050", f"finance.{resource}.approve")
        assert refused.json()["fix"] == {"action": "ask_scope", "by": "company_admin"}
        assert "USD:120050" in refused.json()["detail"]
    assert await read(person, path) == before
    assert (await decide(await approver(finance, person, ("EUR:1", "USD:120050")), path)).status_code == 200


@pytest.mark.parametrize("resource", SUBJECTS)
async def test_a_limit_is_in_the_minor_units_of_each_currency(finance: RunningModule, resource: str) -> None:
    person = await finance.person()
    decider = await approver(finance, person, ("JPY:1500", "BHD:1500"))
    for amount, currency, status in (
        ("1500", "JPY", 200),
        ("1501", "JPY", 403),
        ("1.500", "BHD", 200),
        ("1.501", "BHD", 403),
    ):
        path = await waiting(person, resource, amount=amount, currency=currency)
        assert (await decide(decider, path)).status_code == status, (amount, currency)


@pytest.mark.parametrize("resource", SUBJECTS)
async def test_a_limit_bounds_decisions_and_nothing_else(finance: RunningModule, resource: str) -> None:
    person = await finance.person()
    bounded = await approver(finance, person, ())
    path = await waiting(bounded, resource)
    assert (await bounded.call("GET", path)).status_code == 200
    assert len((await bounded.call("GET", f"/{resource}")).json()[resource]) == 1


@pytest.mark.parametrize("resource", SUBJECTS)
async def test_who_may_write_may_not_approve_and_the_other_way_round(finance: RunningModule, resource: str) -> None:
    person = await finance.person()
    path = await waiting(person, resource)
    scopes = {"business_unit": "*", "event": "*", "approval_limit": "*"}
    writer = await finance.person(
        person.company_id,
        scopes=scopes,
        permissions=("finance.expenses.read", f"finance.{resource}.read", f"finance.{resource}.write"),
    )
    refused = await decide(writer, path)
    assert (refused.status_code, refused.json()["permission"]) == (403, f"finance.{resource}.approve")
    decider = await finance.person(
        person.company_id, scopes=scopes, permissions=("finance.expenses.read", f"finance.{resource}.approve")
    )
    assert (await decide(decider, path)).status_code == 200
    refused = await decider.call("POST", f"{path}/void", headers={"If-Match": "*"}, json=SAID["void"])
    assert (refused.status_code, refused.json()["permission"]) == (403, f"finance.{resource}.write")
