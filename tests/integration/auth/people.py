"""People as a client of the API makes them."""

import itertools
from dataclasses import dataclass
from typing import Any

from tests.harness.services import RunningService

PASSWORD = "a long enough passphrase"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class SignedInPerson:
    id: str
    email: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


async def sign_up(auth: RunningService, **changed: Any) -> dict[str, Any]:
    body = {"email": f"Person{next(_numbers)}@Example.com", "password": PASSWORD, "display_name": "Person", **changed}
    answer = await auth.client.post("/api/auth/users", json=body)
    assert answer.status_code == 201, answer.text
    person: dict[str, Any] = answer.json()
    return person


async def signed_in_person(auth: RunningService) -> SignedInPerson:
    person = await sign_up(auth)
    answer = await auth.client.post("/api/auth/token", json={"email": person["email"], "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    return SignedInPerson(person["id"], person["email"], tokens["access_token"], tokens["refresh_token"])
