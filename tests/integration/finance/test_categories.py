import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text, update

from contracts.identifiers import new_id
from infra.postgres.database import Database
from services.finance.categories.tables import Category
from tests.harness.modules import Person, RunningModule
from tests.harness.waiting import wait_until
from tests.integration.finance.test_expenses import EXPENSE, edit
from tests.integration.finance.test_expenses import add as add_expense

ONE = str(new_id())


async def add(person: Person, name: str = "Stage") -> dict[str, Any]:
    answer = await person.call("POST", "/categories", json={"name": name})
    assert answer.status_code == 201, answer.text
    assert answer.headers["ETag"] == '"1"'
    body: dict[str, Any] = answer.json()
    return body


async def rename(person: Person, category: dict[str, Any], name: str, tag: str = "*") -> Any:
    headers = {"If-Match": tag}
    return await person.call("PATCH", f"/categories/{category['id']}", headers=headers, json={"name": name})


async def retire(person: Person, category: dict[str, Any], tag: str = "*") -> Any:
    return await person.call("POST", f"/categories/{category['id']}/retire", headers={"If-Match": tag})


async def listed(person: Person, query: str = "") -> list[str]:
    found = (await person.call("GET", f"/categories{query}")).json()["categories"]
    return [each["name"] for each in found]


async def test_a_category_is_added_renamed_and_retired(finance: RunningModule) -> None:
    person = await finance.person()
    stage, sound = await add(person), await add(person, "Sound")
    assert (stage["state"], stage["moves"]) == ("active", ["retire"])
    assert await listed(person) == ["Sound", "Stage"]
    assert (await rename(person, stage, "Backline", '"1"')).headers["ETag"] == '"2"'
    assert (await rename(person, stage, "Backline")).headers["ETag"] == '"2"'
    assert (await person.call("PATCH", f"/categories/{stage['id']}", headers={"If-Match": "*"}, json={})).is_success
    assert (await rename(person, stage, "Late", '"1"')).json()["code"] == "version_mismatch"
    retired = await retire(person, stage, '"2"')
    assert (retired.json()["state"], retired.json()["moves"]) == ("retired", [])
    assert (await retire(person, stage)).json()["code"] == "illegal_move"
    assert await listed(person, "?state=active") == ["Sound"]
    assert await listed(person, "?sort=-created") == ["Sound", "Backline"]
    assert (await person.call("GET", f"/categories/{sound['id']}")).json() == sound
    entries = (await person.call("GET", f"/categories/{stage['id']}/history")).json()["entries"]
    assert [each["action"] for each in entries] == ["retire", "edit", "add"]


async def test_a_retired_or_unknown_category_takes_no_expense_and_keeps_those_it_has(finance: RunningModule) -> None:
    person, stranger = await finance.person(), await finance.person()
    category, foreign = await add(person), await add(stranger)
    expense = await add_expense(person, category_id=category["id"])
    other = await add_expense(person)
    await retire(person, category)
    for category_id in (category["id"], foreign["id"], ONE):
        for refused in (
            await person.call("POST", "/expenses", json={**EXPENSE, "category_id": category_id}),
            await edit(person, other, category_id=category_id),
        ):
            assert refused.status_code == 422
            assert [(each["pointer"], each["rule"]) for each in refused.json()["errors"]] == [
                ("/category_id", "category_refused")
            ]
    assert (await edit(person, expense, description="Second stage")).json()["category_id"] == category["id"]
    assert len((await person.call("GET", "/expenses")).json()["expenses"]) == 2


async def test_what_comes_while_a_category_is_being_retired_finds_it_retired(finance: RunningModule) -> None:
    person = await finance.person()
    category = await add(person)
    database = Database(finance.database_url, application_name="test")
    try:
        async with database.unit_of_work(company_id=person.company_id) as work:
            await work.execute(update(Category).where(Category.id == UUID(category["id"])).values(state="retired"))
            body = {**EXPENSE, "category_id": category["id"]}
            posting = asyncio.create_task(person.call("POST", "/expenses", json=body))
            waiting = text("select count(*) from pg_locks where not granted")
            await wait_until(lambda: work.scalar(waiting), lambda found: found == 1, describe="the expense waits")
    finally:
        await database.close()
    assert (await posting).json()["code"] == "category_refused"


async def test_a_name_is_that_of_one_category_until_it_is_retired(finance: RunningModule) -> None:
    person = await finance.person()
    stage, sound = await add(person), await add(person, "Sound")
    refused = [
        await person.call("POST", "/categories", json={"name": "Stage"}),
        await rename(person, sound, "Stage"),
    ]
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(409, "category_name_taken")}
    assert (await person.call("GET", f"/categories/{sound['id']}")).json() == sound
    await retire(person, stage)
    await add(person)
    answers = await asyncio.gather(*(person.call("POST", "/categories", json={"name": "Light"}) for _ in range(4)))
    assert Counter(each.status_code for each in answers) == Counter({201: 1, 409: 3})


async def test_the_list_is_seen_by_who_is_bound_to_a_unit_and_changed_by_who_is_not(finance: RunningModule) -> None:
    person = await finance.person()
    category = await add(person)
    bound = await finance.person(person.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    assert await listed(bound) == ["Stage"]
    refused = [
        await bound.call("POST", "/categories", json={"name": "Ours"}),
        await rename(bound, category, "Ours"),
        await retire(bound, category),
    ]
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(403, "out_of_scope")}


async def test_another_companys_category_is_none(finance: RunningModule) -> None:
    person, stranger = await finance.person(), await finance.person()
    category = await add(person)
    for answer in (
        await rename(stranger, category, "Mine"),
        await retire(stranger, category),
        await stranger.call("GET", f"/categories/{category['id']}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "category_unknown")
    assert await listed(stranger) == []


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\tb", None])
async def test_what_is_no_name_is_refused(finance: RunningModule, name: str | None) -> None:
    person = await finance.person()
    answer = await person.call("POST", "/categories", json={"name": name})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/name")
