import asyncio
from uuid import uuid4

import httpx

from tests.harness.services import RunningService
from tests.integration.auth.people import signed_in_person


async def refresh(auth: RunningService, token: str) -> httpx.Response:
    return await auth.client.post("/api/auth/refresh", json={"refresh_token": token})


async def me(auth: RunningService, headers: dict[str, str]) -> httpx.Response:
    return await auth.client.get("/api/auth/me", headers=headers)


async def test_a_refresh_token_gives_new_tokens_of_the_same_session(auth: RunningService) -> None:
    person = await signed_in_person(auth)
    auth.clock.advance(minutes=11)
    tokens = (await refresh(auth, person.refresh_token)).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert (await me(auth, headers)).status_code == 200
    assert len((await auth.client.get("/api/auth/sessions", headers=headers)).json()) == 1


async def test_a_refresh_token_used_twice_ends_the_session_for_both_holders(auth: RunningService) -> None:
    person = await signed_in_person(auth)
    successor = (await refresh(auth, person.refresh_token)).json()
    stolen = await refresh(auth, person.refresh_token)
    assert (stolen.status_code, stolen.json()["code"]) == (401, "refresh_token_reused")
    after = await refresh(auth, successor["refresh_token"])
    assert (after.status_code, after.json()["code"]) == (401, "refresh_refused")
    ended = await me(auth, {"Authorization": f"Bearer {successor['access_token']}"})
    assert (ended.status_code, ended.json()["code"]) == (401, "session_ended")


async def test_of_two_refreshes_at_once_exactly_one_wins(auth: RunningService) -> None:
    person = await signed_in_person(auth)
    answers = await asyncio.gather(*(refresh(auth, person.refresh_token) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


async def test_a_refresh_token_ends_after_thirty_days(auth: RunningService) -> None:
    person = await signed_in_person(auth)
    auth.clock.advance(days=30)
    assert (await refresh(auth, person.refresh_token)).json()["code"] == "refresh_refused"


async def test_signing_out_ends_the_access_token_at_once_and_may_be_repeated(auth: RunningService) -> None:
    person = await signed_in_person(auth)
    for _ in range(2):
        answer = await auth.client.post("/api/auth/logout", json={"refresh_token": person.refresh_token})
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await me(auth, person.headers)).json()["code"] == "session_ended"


async def test_only_own_sessions_are_listed_and_ended(auth: RunningService) -> None:
    person, other = await signed_in_person(auth), await signed_in_person(auth)
    (session,) = (await auth.client.get("/api/auth/sessions", headers=person.headers)).json()
    foreign = await auth.client.delete(f"/api/auth/sessions/{session['id']}", headers=other.headers)
    unknown = await auth.client.delete(f"/api/auth/sessions/{uuid4()}", headers=other.headers)
    assert foreign.status_code == unknown.status_code == 404
    assert {**foreign.json(), "request_id": None} == {**unknown.json(), "request_id": None}
    assert (await me(auth, person.headers)).status_code == 200
    assert (await auth.client.delete(f"/api/auth/sessions/{session['id']}", headers=person.headers)).status_code == 204
    assert (await me(auth, person.headers)).json()["code"] == "session_ended"
