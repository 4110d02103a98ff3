from typing import Any

import pytest

from tests.harness.modules import Person, RunningModule

ARTIST = {"stage_name": "The Night Ferries", "genre": "indie", "country": "NO"}


async def create(person: Person, **changed: Any) -> dict[str, Any]:
    answer = await person.call("POST", "/artists", json={**ARTIST, **changed})
    assert (answer.status_code, answer.headers.get("ETag")) == (201, '"1"'), answer.text
    body: dict[str, Any] = answer.json()
    return body


async def names(person: Person, query: str = "") -> list[str]:
    answer = await person.call("GET", f"/artists?limit=100{query}")
    assert answer.status_code == 200, answer.text
    return [each["stage_name"] for each in answer.json()["artists"]]


async def test_artists_are_added_edited_and_found_by_the_beginning_of_their_name(promoter: RunningModule) -> None:
    person = await promoter.person()
    artist = await create(person)
    for name in ("Nachtboot", "100% Pure", "nightjar"):
        await create(person, stage_name=name)
    edited = await person.call(
        "PATCH", f"/artists/{artist['id']}", headers={"If-Match": '"1"'}, json={"genre": None, "country": "SE"}
    )
    assert (edited.status_code, edited.headers["ETag"]) == (200, '"2"')
    assert edited.json() == {**artist, "genre": None, "country": "SE", "version": 2}
    assert (await person.call("GET", f"/artists/{artist['id']}")).json() == edited.json()
    assert await names(person, "&sort=-created") == ["nightjar", "100% Pure", "Nachtboot", "The Night Ferries"]
    assert await names(person, "&stage_name_prefix=N") == ["Nachtboot", "nightjar"]
    assert await names(person, "&stage_name_prefix=100%25") == ["100% Pure"]
    assert await names(person, "&stage_name_prefix=%25") == []
    history = (await person.call("GET", f"/artists/{artist['id']}/history")).json()["entries"]
    assert [each["action"] for each in history] == ["edit", "create"]
    assert history[0]["changes"] == {
        "genre": {"before": "indie", "after": None},
        "country": {"before": "NO", "after": "SE"},
    }


async def test_a_beginning_that_no_name_can_have_is_refused(promoter: RunningModule) -> None:
    person = await promoter.person()
    answer = await person.call("GET", "/artists?stage_name_prefix=N%00")
    assert (answer.status_code, answer.json()["errors"][0]["rule"]) == (422, "control_character")


async def test_artists_are_the_whole_companys_and_no_other_companys(promoter: RunningModule) -> None:
    person, stranger = await promoter.person(), await promoter.person()
    artist = await create(person)
    scoped = await promoter.person(person.company_id, scopes={"business_unit": (), "event": ()})
    assert await names(scoped) == [ARTIST["stage_name"]]
    assert await names(stranger) == []
    for path in (f"/artists/{artist['id']}", f"/artists/{artist['id']}/history"):
        assert (await stranger.call("GET", path)).json()["code"] == "artist_unknown"
    refused = await stranger.call("PATCH", f"/artists/{artist['id']}", headers={"If-Match": "*"}, json={})
    assert refused.status_code == 404


async def test_who_changes_events_changes_artists_and_who_reads_artists_does_not(promoter: RunningModule) -> None:
    admin = await promoter.person()
    artist = await create(admin)
    reader = await promoter.person(admin.company_id, permissions=("promoter.artists.read",))
    assert (await reader.call("GET", f"/artists/{artist['id']}")).status_code == 200
    change: dict[str, Any] = {"headers": {"If-Match": "*"}, "json": {"genre": "folk"}}
    for answer in (
        await reader.call("POST", "/artists", json=ARTIST),
        await reader.call("PATCH", f"/artists/{artist['id']}", **change),
    ):
        assert (answer.status_code, answer.json()["permission"]) == (403, "promoter.events.update")
    editor = await promoter.person(admin.company_id, permissions=("promoter.events.update",))
    assert (await editor.call("PATCH", f"/artists/{artist['id']}", **change)).status_code == 200


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"stage_name": ""}, "/stage_name"),
        ({"stage_name": None}, "/stage_name"),
        ({"country": "Norway"}, "/country"),
        ({"country": "no"}, "/country"),
        ({"legal_name": "Ada"}, "/legal_name"),
    ],
)
async def test_what_breaks_a_rule_is_named(promoter: RunningModule, changed: dict[str, Any], pointer: str) -> None:
    person = await promoter.person()
    artist = await create(person)
    made = await person.call("POST", "/artists", json={**ARTIST, **changed})
    edited = await person.call("PATCH", f"/artists/{artist['id']}", headers={"If-Match": "*"}, json=changed)
    for answer in (made, edited):
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_what_no_name_has_is_looked_for_nowhere(promoter: RunningModule) -> None:
    person = await promoter.person()
    answer = await person.call("GET", "/artists", params={"stage_name_prefix": "\0"})
    assert answer.status_code == 422, answer.text
