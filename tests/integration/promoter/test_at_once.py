"""What happens when two come at the same time: one effect, and everybody told the truth."""

import asyncio
import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.util import await_only

from chassis.idempotency import KEPT, forget_old_keys
from infra.postgres.database import Database
from tests.harness.modules import Person, RunningModule
from tests.integration.promoter.test_artists import ARTIST
from tests.integration.promoter.test_events import EVENT, create, edit, listed, move


async def in_company(promoter: RunningModule, person: Person, query: str, *arguments: Any) -> Any:
    """A value as the application's role sees it."""
    connection = await asyncpg.connect(promoter.database_url)
    try:
        async with connection.transaction():
            await connection.execute("select set_config('app.company_id', $1, true)", str(person.company_id))
            return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


@pytest.mark.parametrize("tag", ['"1"', "*"])
async def test_of_two_moves_at_once_exactly_one_is_made(promoter: RunningModule, tag: str) -> None:
    person = await promoter.person()
    for one, other in itertools.combinations_with_replacement(("plan", "cancel"), 2):
        event = await create(person)
        answers = await asyncio.gather(move(person, event, one, tag), move(person, event, other, tag))
        statuses = Counter(answer.status_code for answer in answers)
        if tag == "*" and {one, other} == {"plan", "cancel"}:
            # Without a version to hold to, an event that was planned a moment ago can still be cancelled.
            assert statuses in (Counter([200, 200]), Counter([200, 409]))
        else:
            assert statuses == Counter([200, 412 if tag == '"1"' else 409])
        entries = (await person.call("GET", f"/events/{event['id']}/history")).json()["entries"]
        assert len(entries) == 1 + statuses[200]


async def test_of_many_edits_of_one_version_exactly_one_is_made(promoter: RunningModule) -> None:
    person = await promoter.person()
    event = await create(person)
    answers = await asyncio.gather(*(edit(person, event, '"1"', title=f"Number {number}") for number in range(8)))
    assert Counter(answer.status_code for answer in answers) == Counter({200: 1, 412: 7})
    (won,) = (answer.json() for answer in answers if answer.status_code == 200)
    assert (await person.call("GET", f"/events/{event['id']}")).json() == won


async def test_a_request_sent_many_times_at_once_has_one_effect_and_one_answer(promoter: RunningModule) -> None:
    person = await promoter.person()
    requests = (person.call("POST", "/events", json=EVENT, key="the same") for _ in range(6))
    answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {201}
    assert len({(answer.text, answer.headers["ETag"]) for answer in answers}) == 1
    assert await listed(person) == [answers[0].json()["id"]]
    assert await in_company(promoter, person, "select count(*) from audit_entries") == 1


async def test_a_repetition_is_answered_as_the_first_was_even_when_the_event_has_moved_on(
    promoter: RunningModule,
) -> None:
    person = await promoter.person()
    first = await person.call("POST", "/events", json=EVENT, key="k")
    await move(person, first.json(), "plan")
    again = await person.call("POST", "/events", json=EVENT, key="k")
    assert (again.status_code, again.text, again.headers["ETag"]) == (201, first.text, '"1"')
    clones = [await person.call("POST", f"/events/{first.json()['id']}/clone", json={}, key="k") for _ in range(2)]
    assert clones[0].text == clones[1].text
    assert len(await listed(person)) == 2


async def test_a_key_with_another_body_or_for_another_object_is_refused(promoter: RunningModule) -> None:
    person = await promoter.person()
    first, second = await create(person), await create(person)
    assert (await person.call("POST", "/events", json=EVENT, key="k")).status_code == 201
    assert (await person.call("POST", f"/events/{first['id']}/clone", json={}, key="k")).status_code == 201
    for path, body in (("/events", {**EVENT, "title": "x"}), (f"/events/{second['id']}/clone", {})):
        refused = await person.call("POST", path, json=body, key="k")
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_key_is_one_persons_in_one_company_on_one_route(promoter: RunningModule) -> None:
    person = await promoter.person()
    colleague, stranger = await promoter.person(person.company_id), await promoter.person()
    made = [await each.call("POST", "/events", json=EVENT, key="k") for each in (person, colleague, stranger)]
    made.append(await person.call("POST", "/artists", json=ARTIST, key="k"))
    assert {answer.status_code for answer in made} == {201}
    assert len({answer.json()["id"] for answer in made}) == 4


async def test_what_was_refused_is_not_kept_and_may_be_asked_again(promoter: RunningModule) -> None:
    person = await promoter.person()
    for body in ({**EVENT, "currency": "XXX"}, {**EVENT, "title": ""}):
        assert (await person.call("POST", "/events", json=body, key="k")).status_code == 422
    assert (await person.call("POST", "/events", json=EVENT, key="k")).status_code == 201


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "idempotency_key_missing"),
        ("", "idempotency_key_malformed"),
        ("x" * 256, "idempotency_key_malformed"),
        ("k\N{LATIN SMALL LETTER E WITH ACUTE}y", "idempotency_key_malformed"),
    ],
)
async def test_without_a_key_nothing_is_made(promoter: RunningModule, key: str | None, code: str) -> None:
    person = await promoter.person()
    headers = None if key is None else {"Idempotency-Key": key}
    sent: Any = None if headers is None else {name: value.encode("latin-1") for name, value in headers.items()}
    answer = await person.call("POST", "/events", json=EVENT, key=None, headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert await listed(person) == []
    assert (await person.call("POST", "/events", json=EVENT, key="x" * 255)).status_code == 201


async def test_who_no_longer_reaches_the_unit_is_not_given_the_answer(promoter: RunningModule) -> None:
    person = await promoter.person()
    unit = str(person.user_id)
    body = {**EVENT, "business_unit_id": unit}
    assert (await person.call("POST", "/events", json=body, key="k")).status_code == 201
    await promoter.narrow(person, {"business_unit": (), "event": "*"})
    refused = await person.call("POST", "/events", json=body, key="k")
    assert (refused.status_code, refused.json()["code"]) == (403, "out_of_scope")


async def test_keys_are_kept_for_a_day_and_then_forgotten_in_every_company(promoter: RunningModule) -> None:
    persons = [await promoter.person() for _ in range(3)]
    first = {person.user_id: await person.call("POST", "/events", json=EVENT, key="k") for person in persons}
    database = Database(promoter.database_url, application_name="test")
    try:
        await forget_old_keys(database, datetime.now(UTC) + KEPT - timedelta(minutes=5))
        for person in persons:
            again = await person.call("POST", "/events", json=EVENT, key="k")
            assert again.text == first[person.user_id].text
        await forget_old_keys(database, datetime.now(UTC) + KEPT + timedelta(minutes=5))
    finally:
        await database.close()
    for person in persons:
        anew = await person.call("POST", "/events", json=EVENT, key="k")
        assert (anew.status_code, len(await listed(person))) == (201, 2)


async def test_a_key_that_is_forgotten_while_it_is_looked_up_is_a_new_one(promoter: RunningModule) -> None:
    person = await promoter.person()
    first = await person.call("POST", "/events", json=EVENT, key="k")
    transport = promoter.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    app: Any = transport.app
    engine = app.state.database._engine.sync_engine
    forgetting = Database(promoter.database_url, application_name="test")
    lookups: list[str] = []

    def forget(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT idempotency_keys.") and not lookups:
            lookups.append(statement)
            await_only(forget_old_keys(forgetting, datetime.now(UTC) + KEPT + timedelta(minutes=5)))

    event.listen(engine, "before_cursor_execute", forget)
    try:
        anew = await person.call("POST", "/events", json=EVENT, key="k")
    finally:
        event.remove(engine, "before_cursor_execute", forget)
        await forgetting.close()
    assert len(lookups) == 1
    assert (anew.status_code, len(await listed(person))) == (201, 2)
    assert (await person.call("POST", "/events", json=EVENT, key="k")).text == anew.text != first.text


async def test_the_audit_trail_is_added_to_and_never_changed(promoter: RunningModule) -> None:
    person, stranger = await promoter.person(), await promoter.person()
    await create(person)
    for statement in ("update audit_entries set action = 'x'", "delete from audit_entries", "truncate audit_entries"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await in_company(promoter, person, statement)
    assert await in_company(promoter, person, "select count(*) from audit_entries") == 1
    assert await in_company(promoter, stranger, "select count(*) from audit_entries") == 0
