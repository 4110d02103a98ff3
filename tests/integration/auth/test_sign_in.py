import httpx
import pytest

from services.auth.sessions.rules import FAILED_ATTEMPTS_MAX
from tests.harness.services import RunningService
from tests.integration.auth.people import PASSWORD, sign_up, signed_in_person


async def sign_in(auth: RunningService, email: str, password: str = PASSWORD) -> httpx.Response:
    return await auth.client.post("/api/auth/token", json={"email": email, "password": password})


async def test_who_signed_up_signs_in_whatever_the_case_and_is_told_who_they_are(auth: RunningService) -> None:
    person = await sign_up(auth, email="Ada@Example.com", display_name="Ada Lovelace")
    tokens = (await sign_in(auth, "ada@example.COM")).json()
    answer = await auth.client.get("/api/auth/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert answer.json() == person
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 600)


async def test_the_same_address_in_another_case_is_taken(auth: RunningService) -> None:
    await sign_up(auth, email="ada@example.com")
    again = {"email": "ADA@example.com", "password": PASSWORD, "display_name": "Other"}
    answer = await auth.client.post("/api/auth/users", json=again)
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


async def test_a_wrong_password_and_an_unknown_address_are_one_answer(auth: RunningService) -> None:
    person = await sign_up(auth)
    wrong, unknown = await sign_in(auth, person["email"], "not the password"), await sign_in(auth, "nobody@example.com")
    assert wrong.status_code == unknown.status_code == 401
    assert {**wrong.json(), "request_id": None} == {**unknown.json(), "request_id": None}
    assert wrong.json()["fix"] == {"action": "sign_in", "by": "caller"}


async def test_failed_sign_ins_are_remembered_and_pause_the_account_until_the_window_has_passed(
    auth: RunningService,
) -> None:
    person = await sign_up(auth)
    for _ in range(FAILED_ATTEMPTS_MAX):
        assert (await sign_in(auth, person["email"], "guess")).status_code == 401
    paused = await sign_in(auth, person["email"])
    assert (paused.status_code, paused.headers["Retry-After"]) == (429, "901")
    auth.clock.advance(minutes=15)
    assert (await sign_in(auth, person["email"])).status_code == 200


async def test_an_access_token_ends_with_its_lifetime(auth: RunningService) -> None:
    person = await signed_in_person(auth)
    auth.clock.advance(seconds=599)
    assert (await auth.client.get("/api/auth/me", headers=person.headers)).status_code == 200
    auth.clock.advance(seconds=1)
    answer = await auth.client.get("/api/auth/me", headers=person.headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


async def test_a_signing_key_that_has_served_its_time_is_replaced_and_old_tokens_still_hold(
    auth: RunningService,
) -> None:
    first = await signed_in_person(auth)
    auth.clock.advance(days=89)
    await signed_in_person(auth)
    auth.clock.advance(days=1, seconds=-1)
    last_of_old = await signed_in_person(auth)
    auth.clock.advance(seconds=2)
    first_of_new = await signed_in_person(auth)
    assert _kid(first.access_token) == _kid(last_of_old.access_token) != _kid(first_of_new.access_token)
    for person in (last_of_old, first_of_new):
        assert (await auth.client.get("/api/auth/me", headers=person.headers)).status_code == 200


def _kid(token: str) -> str:
    import jwt

    return str(jwt.get_unverified_header(token)["kid"])


@pytest.mark.parametrize(
    ("changed", "pointer", "rule"),
    [
        ({"email": "no address"}, "/email", "value_error"),
        ({"password": "short"}, "/password", "password_refused"),
        ({"password": "x" * 129}, "/password", "password_refused"),
        ({"password": "someone@example.com", "email": "someone@example.com"}, "/password", "password_refused"),
        ({"display_name": ""}, "/display_name", "string_too_short"),
        ({"display_name": "a\x00b"}, "/display_name", "control_character"),
        ({"display_name": 7}, "/display_name", "string_type"),
        ({"display_name": None}, "/display_name", "string_type"),
        ({"role": "admin"}, "/role", "extra_forbidden"),
    ],
)
async def test_a_sign_up_that_breaks_a_rule_names_field_and_rule_and_makes_no_account(
    auth: RunningService, changed: dict[str, object], pointer: str, rule: str
) -> None:
    body = {"email": "ada@example.com", "password": PASSWORD, "display_name": "Ada", **changed}
    answer = await auth.client.post("/api/auth/users", json=body)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [(error["pointer"], error["rule"]) for error in answer.json()["errors"]] == [(pointer, rule)]
    assert str(body["password"]) not in answer.text
    assert (await sign_in(auth, str(body["email"]), str(body["password"]))).status_code in {401, 422}


@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"\xff\xfe", b"", b'{"email": NaN}'])
async def test_a_body_that_is_no_object_is_refused(auth: RunningService, body: bytes) -> None:
    answer = await auth.client.post("/api/auth/token", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_body_over_a_mebibyte_is_refused(auth: RunningService) -> None:
    answer = await auth.client.post("/api/auth/token", json={"email": "a" * 1024 * 1024, "password": "x"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
