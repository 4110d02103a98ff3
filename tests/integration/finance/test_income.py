import asyncio
from typing import Any

import pytest

from contracts.identifiers import new_id
from tests.harness.modules import Person, RunningModule
from tests.integration.finance.test_expenses import tell_of

ONE, OTHER = str(new_id()), str(new_id())
INCOME = {
    "kind": "tickets",
    "description": "Presale",
    "amount": "5000",
    "currency": "USD",
    "received_on": "2026-05-20",
}
WHY = {"reason": "Put down twice"}


async def add_income(person: Person, **changed: Any) -> dict[str, Any]:
    answer = await person.call("POST", "/income", json={**INCOME, **changed})
    assert (answer.status_code, answer.headers.get("ETag")) == (201, '"1"'), answer.text
    body: dict[str, Any] = answer.json()
    return body


async def edit(person: Person, income: dict[str, Any], tag: str = "*", **changes: Any) -> Any:
    return await person.call("PATCH", f"/income/{income['id']}", headers={"If-Match": tag}, json=changes)


async def void(person: Person, income: dict[str, Any], tag: str = "*") -> Any:
    return await person.call("POST", f"/income/{income['id']}/void", headers={"If-Match": tag}, json=WHY)


async def listed(person: Person, query: str = "") -> list[str]:
    found = (await person.call("GET", f"/income{query}")).json()["income"]
    return [each["id"] for each in found]


async def test_income_is_added_edited_and_void(finance: RunningModule) -> None:
    person = await finance.person()
    await tell_of(finance, person, ONE)
    income = await add_income(person)
    assert [income[name] for name in ("state", "moves", "kind", "amount")] == [
        "recorded",
        ["void"],
        "tickets",
        "5000.00",
    ]
    edited = await edit(person, income, '"1"', kind="sponsorship", amount="7.5", event_id=ONE)
    assert edited.headers["ETag"] == '"2"'
    changes = {"kind": "sponsorship", "amount": "7.50", "event_id": ONE, "version": 2}
    assert edited.json() == {**income, **changes}
    assert (await edit(person, income)).headers["ETag"] == '"2"'
    assert (await edit(person, income, '"1"', amount="1")).json()["code"] == "version_mismatch"
    voided = await void(person, income, '"2"')
    assert [voided.json()[name] for name in ("state", "moves", "void_reason")] == ["void", [], WHY["reason"]]
    assert (await void(person, income)).json()["code"] == "illegal_move"
    refused = await edit(person, income, amount="1")
    assert (refused.status_code, refused.json()["code"]) == (409, "income_void")
    entries = (await person.call("GET", f"/income/{income['id']}/history")).json()["entries"]
    assert [each["action"] for each in entries] == ["void", "edit", "add"]


async def test_lists_are_sorted_and_narrowed(finance: RunningModule) -> None:
    person = await finance.person()
    await tell_of(finance, person, OTHER)
    may = await add_income(person, business_unit_id=ONE)
    april = await add_income(person, received_on="2026-04-01", kind="grant", event_id=OTHER)
    void_one = await add_income(person, received_on="2026-05-01")
    await void(person, void_one)
    for query, found in {
        "": [void_one, april, may],
        "?sort=received_on": [april, void_one, may],
        "?kind=grant": [april],
        "?state=recorded": [april, may],
        f"?business_unit_id={ONE}": [may],
        f"?event_id={OTHER}": [april],
        "?received_from=2026-05-01&received_before=2026-05-20": [void_one],
    }.items():
        assert await listed(person, query) == [each["id"] for each in found], query


async def test_scopes_bite_on_income(finance: RunningModule) -> None:
    admin = await finance.person()
    mine, foreign = await add_income(admin, business_unit_id=ONE), await add_income(admin, business_unit_id=OTHER)
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    assert await listed(scoped) == [mine["id"]]
    refused = [
        await scoped.call("GET", f"/income/{foreign['id']}"),
        await scoped.call("GET", f"/income/{foreign['id']}/history"),
        await edit(scoped, foreign, amount="1"),
        await edit(scoped, mine, business_unit_id=OTHER),
        await void(scoped, foreign),
        await scoped.call("POST", "/income", json=INCOME),
    ]
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(403, "out_of_scope")}
    stranger = await finance.person()
    for answer in (await void(stranger, mine), await edit(stranger, mine, amount="1")):
        assert (answer.status_code, answer.json()["code"]) == (404, "income_unknown")


async def test_income_sent_many_times_at_once_is_put_down_once(finance: RunningModule) -> None:
    person = await finance.person()
    answers = await asyncio.gather(*(person.call("POST", "/income", json=INCOME, key="k") for _ in range(5)))
    assert {(each.status_code, each.text) for each in answers} == {(201, answers[0].text)}
    assert await listed(person) == [answers[0].json()["id"]]


@pytest.mark.parametrize(
    ("changed", "pointer", "rule"),
    [
        ({"amount": "0.001"}, "/amount", "amount_invalid"),
        ({"amount": "-5"}, "/amount", "amount_invalid"),
        ({"currency": "XXX"}, "/currency", "currency_unknown"),
        ({"received_on": "2999-01-01"}, "/received_on", "income_date_refused"),
        ({"kind": "luck"}, "/kind", "enum"),
        ({"kind": None}, "/kind", "enum"),
        ({"state": "void"}, "/state", "extra_forbidden"),
    ],
)
async def test_income_that_breaks_a_rule_names_field_and_rule_and_is_not_there(
    finance: RunningModule, changed: dict[str, Any], pointer: str, rule: str
) -> None:
    person = await finance.person()
    answer = await person.call("POST", "/income", json={**INCOME, **changed})
    assert answer.status_code == 422
    assert [(error["pointer"], error["rule"]) for error in answer.json()["errors"]] == [(pointer, rule)]
    assert await listed(person) == []
