"""What is put down on an event: it is one the promoter told of, of the same company."""

from typing import Any

import pytest

from contracts.identifiers import new_id
from tests.harness.modules import RunningModule
from tests.integration.finance.test_bills import BILL
from tests.integration.finance.test_expenses import EXPENSE, in_company, tell_of
from tests.integration.finance.test_income import INCOME

BODIES = {"expenses": EXPENSE, "bills": BILL, "income": INCOME}
each_resource = pytest.mark.parametrize("resource", BODIES)


@each_resource
async def test_on_an_event_that_is_unknown_foreign_or_removed_nothing_is_put_down(
    finance: RunningModule, resource: str
) -> None:
    person, stranger = await finance.person(), await finance.person()
    known, foreign, removed = (str(new_id()) for _ in range(3))
    for owner, event_id in ((person, known), (stranger, foreign), (person, removed)):
        await tell_of(finance, owner, event_id)
    await in_company(finance, person, "update projected_events set status = 'removed' where id = $1", removed)
    added = await person.call("POST", f"/{resource}", json={**BODIES[resource], "event_id": known})
    assert added.status_code == 201, added.text
    path, headers = f"/{resource}/{added.json()['id']}", {"If-Match": "*"}
    answers: list[Any] = []
    for event_id in (str(new_id()), foreign, removed):
        answers.append(await person.call("POST", f"/{resource}", json={**BODIES[resource], "event_id": event_id}))
        answers.append(await person.call("PATCH", path, headers=headers, json={"event_id": event_id}))
    bodies = [{**answer.json(), "request_id": None} for answer in answers]
    assert {answer.status_code for answer in answers} == {422}
    assert bodies == [bodies[0]] * 6
    assert [(each["pointer"], each["rule"]) for each in bodies[0]["errors"]] == [("/event_id", "event_unknown")]
    assert (await person.call("GET", f"/{resource}")).json()[resource] == [added.json()]


@each_resource
async def test_what_was_put_down_on_an_event_is_changed_also_when_that_is_gone(
    finance: RunningModule, resource: str
) -> None:
    person = await finance.person()
    event_id = str(new_id())
    await tell_of(finance, person, event_id)
    added = await person.call("POST", f"/{resource}", json={**BODIES[resource], "event_id": event_id})
    await in_company(finance, person, "update projected_events set status = 'removed'")
    path, headers = f"/{resource}/{added.json()['id']}", {"If-Match": "*"}
    edited = await person.call("PATCH", path, headers=headers, json={"event_id": event_id, "description": "Late"})
    assert (edited.status_code, edited.json()["description"]) == (200, "Late")


@each_resource
async def test_on_an_event_whose_newest_state_is_not_known_nothing_is_put_down_yet(
    finance: RunningModule, resource: str
) -> None:
    person = await finance.person()
    event_id = str(new_id())
    await tell_of(finance, person, event_id, withheld_version=2)
    refused = await person.call("POST", f"/{resource}", json={**BODIES[resource], "event_id": event_id})
    assert (refused.status_code, refused.json()["code"]) == (503, "event_state_unknown")
    assert (await person.call("GET", f"/{resource}")).json()[resource] == []
