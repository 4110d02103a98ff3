"""Events over HTTP: written, read, listed and refused."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from contracts.identifiers import new_id
from tests.harness.modules import Person, RunningModule

ONE, OTHER = str(new_id()), str(new_id())
EVENT = {
    "title": "Northern Lights",
    "starts_at": "2026-06-18T17:00:00+02:00",
    "ends_at": "2026-06-18T22:00:00+02:00",
    "time_zone": "Europe/Oslo",
    "venue_text": "The old shipyard",
    "currency": "NOK",
}


async def create(person: Person, **changed: Any) -> dict[str, Any]:
    answer = await person.call("POST", "/events", json={**EVENT, **changed})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["ETag"] == f'"{body["version"]}"' == '"1"'
    return body


async def move(person: Person, event: dict[str, Any], name: str, tag: str = "*") -> Any:
    return await person.call("POST", f"/events/{event['id']}/{name}", headers={"If-Match": tag})


async def edit(person: Person, event: dict[str, Any], tag: str = "*", **changes: Any) -> Any:
    return await person.call("PATCH", f"/events/{event['id']}", headers={"If-Match": tag}, json=changes)


async def listed(person: Person, query: str = "") -> list[str]:
    """The ids of every page, three to a page."""
    found: list[str] = []
    cursor = ""
    while True:
        answer = await person.call("GET", f"/events?limit=3{query}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [each["id"] for each in page["events"]]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


async def test_a_draft_is_made_read_and_listed(promoter: RunningModule) -> None:
    person = await promoter.person()
    event = await create(person, business_unit_id=ONE)
    assert event["state"] == "draft"
    assert event["moves"] == ["plan", "cancel"]
    assert (event["starts_at"], event["time_zone"]) == ("2026-06-18T15:00:00Z", "Europe/Oslo")
    assert (event["created_by"], event["business_unit_id"]) == (str(person.user_id), ONE)
    read = await person.call("GET", f"/events/{event['id']}")
    assert (read.json(), read.headers["ETag"]) == (event, '"1"')
    assert await listed(person) == [event["id"]]


async def test_an_event_goes_its_way_from_draft_to_settled_and_each_step_is_a_version(promoter: RunningModule) -> None:
    person = await promoter.person()
    event = await create(person)
    way = ("plan", "confirm", "announce", "put-on-sale", "begin-settlement", "settle")
    states = []
    for version, name in enumerate(way, 1):
        answer = await move(person, event, name, f'"{version}"')
        assert (answer.status_code, answer.headers["ETag"]) == (200, f'"{version + 1}"')
        states.append(answer.json()["state"])
    assert states == ["hold", "confirmed", "announced", "on_sale", "in_settlement", "settled"]
    closed = await edit(person, event, title="Another")
    assert (closed.status_code, closed.json()["code"]) == (409, "event_closed")


async def test_a_postponed_event_is_planned_again_and_a_cancelled_one_is_not(promoter: RunningModule) -> None:
    person = await promoter.person()
    event = await create(person)
    for name in ("plan", "confirm"):
        assert (await move(person, event, name)).status_code == 200
    postponed = (await move(person, event, "postpone")).json()
    assert (postponed["starts_at"], postponed["ends_at"], postponed["time_zone"]) == (None, None, "Europe/Oslo")
    entry = (await person.call("GET", f"/events/{event['id']}/history")).json()["entries"][0]
    assert entry["changes"]["starts_at"] == {"before": "2026-06-18T15:00:00+00:00", "after": None}
    assert await listed(person, "&starts_from=2026-06-18T00:00:00Z") == []
    assert (await move(person, event, "plan")).json()["state"] == "hold"
    refused = await move(person, event, "confirm")
    assert (refused.status_code, refused.json()["code"]) == (409, "event_incomplete")
    assert "a date" in refused.json()["detail"]
    later = {"starts_at": "2026-09-18T15:00:00Z", "ends_at": "2026-09-18T20:00:00Z"}
    assert (await edit(person, event, **later)).status_code == 200
    assert (await move(person, event, "confirm")).json()["starts_at"] == later["starts_at"]
    assert (await move(person, event, "cancel")).json()["moves"] == []
    assert (await move(person, event, "plan")).json()["code"] == "illegal_move"


@pytest.mark.parametrize(
    ("absent", "missing"),
    [
        ({"starts_at": None, "ends_at": None}, "a date"),
        ({"venue_text": None}, "a venue"),
        ({"currency": None}, "a curr"),
    ],
)
async def test_what_a_confirmed_event_says_it_goes_on_saying(
    promoter: RunningModule, absent: dict[str, Any], missing: str
) -> None:
    person = await promoter.person()
    bare, whole = await create(person, **absent), await create(person)
    for event in (bare, whole):
        await move(person, event, "plan")
    refused = await move(person, bare, "confirm")
    assert (refused.status_code, refused.json()["code"]) == (409, "event_incomplete")
    assert missing in refused.json()["detail"]
    assert (await move(person, whole, "confirm")).status_code == 200
    emptied = await edit(person, whole, **absent)
    assert (emptied.status_code, emptied.json()["code"]) == (409, "event_incomplete")
    space = await edit(person, whole, venue_text=None, space_id=str(new_id()))
    assert space.status_code == 200


async def test_an_illegal_move_names_the_state_the_move_and_what_is_allowed_and_changes_nothing(
    promoter: RunningModule,
) -> None:
    person = await promoter.person()
    event = await create(person)
    refused = await move(person, event, "announce")
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal_move")
    detail = "announce cannot be done in the state draft; what can be done: plan, cancel."
    assert refused.json()["detail"] == detail
    assert (await person.call("GET", f"/events/{event['id']}")).json() == event


async def test_a_change_is_for_the_version_that_was_read(promoter: RunningModule) -> None:
    person = await promoter.person()
    event = await create(person)
    assert (await edit(person, event, '"1"', title="Second")).headers["ETag"] == '"2"'
    for tag in ('"1"', 'W/"2"', '"02"'):
        refused = await edit(person, event, tag, title="Third")
        assert (refused.status_code, refused.json()["code"]) == (412, "version_mismatch")
        assert (await move(person, event, "plan", tag)).status_code == 412
    without = await person.call("PATCH", f"/events/{event['id']}", json={"title": "Third"})
    assert (without.status_code, without.json()["code"]) == (428, "precondition_required")
    malformed = await edit(person, event, "2", title="Third")
    assert (malformed.status_code, malformed.json()["code"]) == (400, "entity_tag_malformed")
    assert (await edit(person, event, '"1", "2"', title="Third")).json()["title"] == "Third"
    assert (await edit(person, event, "*", title="Fourth")).json()["version"] == 4


async def test_an_edit_that_changes_nothing_is_no_version(promoter: RunningModule) -> None:
    person = await promoter.person()
    event = await create(person)
    assert (await edit(person, event, title=EVENT["title"])).headers["ETag"] == '"1"'
    assert (await edit(person, event)).json() == event
    assert len((await person.call("GET", f"/events/{event['id']}/history")).json()["entries"]) == 1


async def test_a_clone_is_a_draft_without_a_date(promoter: RunningModule) -> None:
    person = await promoter.person()
    event = await create(person, business_unit_id=ONE)
    await move(person, event, "plan")
    answer = await person.call("POST", f"/events/{event['id']}/clone", json={})
    clone = answer.json()
    assert (answer.status_code, answer.headers["ETag"], clone["state"]) == (201, '"1"', "draft")
    assert clone["id"] != event["id"]
    assert (clone["starts_at"], clone["ends_at"]) == (None, None)
    kept = ("title", "business_unit_id", "time_zone", "venue_text", "currency")
    assert [clone[name] for name in kept] == [event[name] for name in kept]
    titled = await person.call("POST", f"/events/{event['id']}/clone", json={"title": "Once more"})
    assert titled.json()["title"] == "Once more"


async def test_history_tells_who_did_what_and_what_was_different(promoter: RunningModule) -> None:
    person = await promoter.person()
    colleague = await promoter.person(person.company_id)
    event = await create(person)
    await edit(colleague, event, title="Aurora", venue_text=None, space_id=ONE)
    await move(person, event, "plan")
    first = (await person.call("GET", f"/events/{event['id']}/history?limit=2")).json()
    rest = (await person.call("GET", f"/events/{event['id']}/history?limit=2&cursor={first['next']}")).json()
    assert rest["next"] is None
    entries: list[dict[str, Any]] = [*first["entries"], *rest["entries"]]
    planned, edited, created = entries
    assert [planned["action"], edited["action"], created["action"]] == ["plan", "edit", "create"]
    assert planned["changes"] == {"state": {"before": "draft", "after": "hold"}}
    assert edited["changes"] == {
        "title": {"before": "Northern Lights", "after": "Aurora"},
        "venue_text": {"before": "The old shipyard", "after": None},
        "space_id": {"before": None, "after": ONE},
    }
    assert created["changes"]["starts_at"] == {"before": None, "after": "2026-06-18T15:00:00+00:00"}
    assert [(each["version_before"], each["version_after"]) for each in (created, edited, planned)] == [
        (None, 1),
        (1, 2),
        (2, 3),
    ]
    actors = [each["actor_user_id"] for each in (created, edited, planned)]
    assert actors == [str(person.user_id), str(colleague.user_id), str(person.user_id)]


@pytest.mark.parametrize("sort", ["created", "-created", "starts_at", "-starts_at", "title", "-title"])
async def test_every_sort_pages_through_all_events_once_while_others_come(promoter: RunningModule, sort: str) -> None:
    person = await promoter.person()
    begin = datetime(2026, 6, 1, tzinfo=UTC)
    made: list[dict[str, Any]] = []
    for number in range(8):
        day = None if number in {3, 6} else begin + timedelta(days=number % 3)
        times = {
            "starts_at": None if day is None else day.isoformat(),
            "ends_at": None if day is None else (day + timedelta(hours=3)).isoformat(),
        }
        made.append(await create(person, title=f"Night {number % 4}", **times))
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    far = "9999"
    expected = sorted(
        made,
        key=lambda each: (each["id"] if name == "created" else each[name] or far, each["id"]),
        reverse=descending,
    )
    assert await listed(person, f"&sort={sort}") == [each["id"] for each in expected]
    page = (await person.call("GET", f"/events?limit=4&sort={sort}")).json()
    late = await create(person, title="Night 2")
    rest = (await person.call("GET", f"/events?limit=100&sort={sort}&cursor={page['next']}")).json()
    seen = [each["id"] for each in (*page["events"], *rest["events"])]
    assert [each for each in seen if each != late["id"]] == [each["id"] for each in expected]


async def test_lists_are_filtered_by_state_unit_and_start(promoter: RunningModule) -> None:
    person = await promoter.person()
    june = await create(person, business_unit_id=ONE)
    july = await create(person, starts_at="2026-07-18T17:00:00Z", ends_at="2026-07-18T22:00:00Z")
    undated = await create(person, starts_at=None, ends_at=None, business_unit_id=OTHER)
    await move(person, july, "plan")
    for query, found in {
        "&state=draft": {june["id"], undated["id"]},
        "&state=hold&state=draft": {june["id"], july["id"], undated["id"]},
        "&state=settled": set(),
        f"&business_unit_id={ONE}": {june["id"]},
        "&starts_from=2026-06-18T15:00:00Z": {june["id"], july["id"]},
        "&starts_from=2026-06-18T15:00:00.000001Z": {july["id"]},
        "&starts_before=2026-07-18T17:00:00Z": {june["id"]},
        "&starts_before=2026-07-18T19:00:01%2B02:00": {june["id"], july["id"]},
        f"&starts_from=2026-06-01T00:00:00Z&state=hold&business_unit_id={ONE}": set(),
    }.items():
        assert set(await listed(person, query)) == found, query


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ("limit=0", "?limit", "invalid_request"),
        ("limit=201", "?limit", "invalid_request"),
        ("cursor=x", "?cursor", "cursor_invalid"),
        ("cursor=%00", "?cursor", "cursor_invalid"),
        ("sort=venue_text", "?sort", "sort_unknown"),
        ("sort=--created", "?sort", "sort_unknown"),
        ("state=over", "?state", "invalid_request"),
        ("starts_from=2026-06-01", "?starts_from", "invalid_request"),
        ("starts_from=2026-06-01T00:00:00", "?starts_from", "invalid_request"),
        ("starts_before=0001-01-01T00:00:00%2B14:00", "?starts_before", "invalid_request"),
        ("business_unit_id=one", "?business_unit_id", "invalid_request"),
    ],
)
async def test_a_list_asked_for_wrongly_names_the_parameter(
    promoter: RunningModule, query: str, pointer: str, code: str
) -> None:
    person = await promoter.person()
    answer = await person.call("GET", f"/events?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_cursor_holds_for_the_sort_it_was_given_with(promoter: RunningModule) -> None:
    person = await promoter.person()
    for _ in range(2):
        await create(person)
    cursor = (await person.call("GET", "/events?limit=1&sort=title")).json()["next"]
    assert (await person.call("GET", f"/events?sort=title&cursor={cursor}")).status_code == 200
    for sort in ("-title", "created"):
        assert (await person.call("GET", f"/events?sort={sort}&cursor={cursor}")).json()["code"] == "cursor_invalid"


async def test_a_foreign_cursor_shows_nothing_of_its_company(promoter: RunningModule) -> None:
    person, stranger = await promoter.person(), await promoter.person()
    for _ in range(3):
        await create(person)
    cursor = (await person.call("GET", "/events?limit=1")).json()["next"]
    assert (await stranger.call("GET", f"/events?cursor={cursor}")).json() == {"events": [], "next": None}


@pytest.mark.parametrize(
    ("changed", "pointer", "rule"),
    [
        ({"title": ""}, "/title", "string_too_short"),
        ({"title": None}, "/title", "string_type"),
        ({"title": "x" * 201}, "/title", "string_too_long"),
        ({"ends_at": None}, "/starts_at", "event_times_invalid"),
        ({"ends_at": EVENT["starts_at"]}, "/starts_at", "event_times_invalid"),
        ({"starts_at": "2026-06-18T17:00:00"}, "/starts_at", "instant_text"),
        ({"starts_at": 1781794800}, "/starts_at", "instant_text"),
        ({"starts_at": "2026-06-31T17:00:00Z"}, "/starts_at", "instant_text"),
        ({"time_zone": None}, "/time_zone", "time_zone_unknown"),
        ({"time_zone": "Europe/Atlantis"}, "/time_zone", "time_zone_unknown"),
        ({"time_zone": "../../etc/passwd"}, "/time_zone", "time_zone_unknown"),
        ({"time_zone": "Europe"}, "/time_zone", "time_zone_unknown"),
        ({"currency": "nok"}, "/currency", "currency_unknown"),
        ({"currency": "XXX"}, "/currency", "currency_unknown"),
        ({"state": "settled"}, "/state", "extra_forbidden"),
        ({"business_unit_id": "one"}, "/business_unit_id", "id_text"),
    ],
)
async def test_what_breaks_a_rule_names_field_and_rule_when_made_and_when_edited(
    promoter: RunningModule, changed: dict[str, Any], pointer: str, rule: str
) -> None:
    person = await promoter.person()
    event = await create(person)
    made = await person.call("POST", "/events", json={**EVENT, **changed})
    for answer in (made, await edit(person, event, **changed)):
        assert answer.status_code == 422, answer.text
        assert [(error["pointer"], error["rule"]) for error in answer.json()["errors"]] == [(pointer, rule)]
    assert await listed(person) == [event["id"]]


async def test_scopes_bite_on_making_reading_changing_and_listing(promoter: RunningModule) -> None:
    admin = await promoter.person()
    mine, foreign = await create(admin, business_unit_id=ONE), await create(admin, business_unit_id=OTHER)
    unassigned = await create(admin)
    scoped = await promoter.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    assert await listed(scoped) == [mine["id"]]
    assert (await edit(scoped, mine, title="Ours")).status_code == 200
    refusals = [await scoped.call("POST", "/events", json={**EVENT, "business_unit_id": OTHER})]
    refusals.append(await edit(scoped, mine, business_unit_id=OTHER))
    refusals.append(await edit(scoped, mine, business_unit_id=None))
    for event in (foreign, unassigned):
        refusals.append(await scoped.call("GET", f"/events/{event['id']}"))
        refusals.append(await scoped.call("GET", f"/events/{event['id']}/history"))
        refusals.append(await edit(scoped, event, title="Ours"))
        refusals.append(await move(scoped, event, "plan"))
        refusals.append(await scoped.call("POST", f"/events/{event['id']}/clone", json={}))
    assert {(each.status_code, each.json()["code"]) for each in refusals} == {(403, "out_of_scope")}
    await create(scoped, business_unit_id=ONE)


async def test_who_is_bound_to_some_events_sees_those_and_makes_none(promoter: RunningModule) -> None:
    admin = await promoter.person()
    mine, _ = await create(admin, business_unit_id=ONE), await create(admin, business_unit_id=ONE)
    scoped = await promoter.person(admin.company_id, scopes={"business_unit": "*", "event": (mine["id"],)})
    assert await listed(scoped) == [mine["id"]]
    assert (await move(scoped, mine, "plan")).status_code == 200
    for path, body in (("/events", {**EVENT, "business_unit_id": ONE}), (f"/events/{mine['id']}/clone", {})):
        refused = await scoped.call("POST", path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "out_of_scope")


async def test_cancelling_is_a_right_of_its_own(promoter: RunningModule) -> None:
    admin = await promoter.person()
    event = await create(admin)
    editor = await promoter.person(
        admin.company_id, permissions=("promoter.events.read", "promoter.events.update", "promoter.events.create")
    )
    refused = await move(editor, event, "cancel")
    assert (refused.status_code, refused.json()["permission"]) == (403, "promoter.events.cancel")
    assert (await move(editor, event, "plan")).status_code == 200


async def test_another_companys_event_is_no_event(promoter: RunningModule) -> None:
    person, stranger = await promoter.person(), await promoter.person()
    event = await create(person)
    for answer, unknown in (
        (await move(stranger, event, "plan"), await move(stranger, {"id": uuid4()}, "plan")),
        (await edit(stranger, event, title="Mine"), await edit(stranger, {"id": uuid4()}, title="Mine")),
    ):
        assert answer.status_code == unknown.status_code == 404
        assert {**answer.json(), "request_id": None} == {**unknown.json(), "request_id": None}
