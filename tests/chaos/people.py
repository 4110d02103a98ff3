"""The people of the company: signed up and kept signed in, and given and denied rights by its founder, over HTTP."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

import httpx

from cli.demo.system import System
from tests.chaos.company import REMOVED, Change, Question, Standing, standing_of
from tests.chaos.oracle import Oracle, Timeline, Write
from tests.harness.waiting import wait_until

_RENEWED_BEFORE_SECONDS: Final = 240.0
_RENEWAL_SECONDS: Final = 1.0
_AUTH_BACK_SECONDS: Final = 90.0


class LostWriteError(Exception):
    """What Auth holds cannot have come about by the writes it was sent."""


@dataclass(eq=False)
class Person:
    """Somebody who signed up. `version` is that of their membership, as Auth told it last."""

    id: UUID
    email: str
    password: str = field(repr=False)
    token: str = field(default="", repr=False)
    #: By the monotonic clock.
    token_ends: float = 0.0
    version: int = 0


@dataclass
class Counts:
    """What became of the writes."""

    acknowledged: int = 0
    #: Without an answer, or with one that says nothing; then Auth was asked.
    unanswered: int = 0
    #: Of these, those that had taken effect.
    unanswered_took_effect: int = 0


class People:
    """Everybody, and the founder who writes. All writes are noted in the oracle's timelines."""

    def __init__(self, system: System, http: httpx.AsyncClient, oracle: Oracle[str, Standing, Question]) -> None:
        self._system = system
        self._http = http
        self._oracle = oracle
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._in_flight = 0
        self.founder: Person
        self.company_id: UUID
        self.members: list[Person] = []
        self.counts = Counts()

    async def found(self, name: str) -> None:
        """Somebody signs up and founds the company."""
        self.founder = await self.sign_up("founder")
        answer = await self._auth("POST", "/companies", {"name": name}, token=self.founder.token)
        self.company_id = UUID(answer.raise_for_status().json()["id"])

    async def sign_up(self, name: str) -> Person:
        """A new person, signed in, in no company."""
        email, password = f"{name}-{uuid4().hex[:12]}@example.com", uuid4().hex
        body = {"email": email, "password": password, "display_name": name}
        answer = (await self._auth("POST", "/users", body)).raise_for_status()
        person = Person(UUID(answer.json()["id"]), email, password)
        await self.sign_in(person)
        return person

    async def sign_in(self, person: Person) -> None:
        """Get a new token. Raises httpx.HTTPError."""
        body = {"email": person.email, "password": person.password}
        tokens = (await self._auth("POST", "/token", body)).raise_for_status().json()
        person.token, person.token_ends = tokens["access_token"], time.monotonic() + tokens["expires_in"]

    async def keep_signed_in(self, over: asyncio.Event) -> None:
        """Renew every token before it ends. Auth may be away for minutes."""
        while not await is_set_within(over, _RENEWAL_SECONDS):
            for person in (self.founder, *self.members):
                if person.token_ends - time.monotonic() < _RENEWED_BEFORE_SECONDS:
                    # Auth is away, or does not know them any more since it was restored: again in a second.
                    with contextlib.suppress(httpx.HTTPError):
                        await self.sign_in(person)

    async def join(self, name: str) -> Person:
        """A new person who becomes a member, with nothing granted."""
        person = await self.sign_up(name)
        self._oracle.timelines[str(person.id)] = Timeline(REMOVED, time.monotonic())
        self.members.append(person)
        return person

    def standing(self, person: Person) -> Standing:
        """As the last write left it."""
        return self._timeline(person).state

    async def change(self, person: Person, change: Change) -> bool:
        """Write, and find out whether it took effect. Raises LostWriteError, httpx.HTTPStatusError.

        What is to be written is chosen after `may_write` and nothing else awaited.
        """
        write = self._timeline(person).send(change.after, time.monotonic())
        path = change.path.replace("{person}", str(person.id))
        self._in_flight += 1
        try:
            answer = await self._auth(change.method, path, change.body, token=self.founder.token)
        except httpx.TransportError:
            answer = None
        finally:
            self._in_flight -= 1
        if answer is None or answer.is_server_error:
            self.counts.unanswered += 1
            return await self._settle(person, write)
        answer.raise_for_status()
        self.counts.acknowledged += 1
        write.answered = time.monotonic()
        version = int(answer.headers["Kisum-Revision"].rsplit(":", 1)[1])
        # By more than one, where Auth published the state again above another that was in the log.
        if version <= person.version:
            raise LostWriteError(f"{person.id}: version {version} answers a write to version {person.version}")
        person.version = version
        return True

    async def may_write(self) -> None:
        """Wait while writing is paused."""
        await self._may_write.wait()

    async def pause(self) -> None:
        """Begin no write, and settle none, until `resume`. Returns when none is under way any more."""
        self._may_write.clear()
        await wait_until(self._writes_in_flight, lambda number: number == 0, describe="no write is under way")

    def resume(self) -> None:
        self._may_write.set()

    async def adopt(self, since: float) -> None:
        """Take over what Auth holds now as what everybody is: its database was restored, `since` then at the earliest.

        Only between `pause` and `resume`.
        """
        for person in self.members:
            standing, version = await self._read(person)
            self._timeline(person).replace(standing, since, time.monotonic())
            # Of somebody who was removed no version is told.
            person.version = version or 0

    async def lost(self) -> list[str]:
        """Who is not what the last write that took effect made them."""
        found = []
        for person in self.members:
            standing, version = await self._read(person)
            if standing != self.standing(person) or (version is not None and version < person.version):
                found.append(f"{person.id}: {standing} {version}, not {self.standing(person)} {person.version}")
        return found

    async def _writes_in_flight(self) -> int:
        return self._in_flight

    async def _settle(self, person: Person, write: Write[Standing]) -> bool:
        """Ask Auth what became of a write that was not answered."""
        timeline = self._timeline(person)
        while True:
            await self._may_write.wait()
            if timeline.writes[-1] is not write:
                return False
            standing, version = await self._read(person)
            if self._may_write.is_set():
                break
        if standing == write.state:
            write.answered = time.monotonic()
            person.version = version or person.version
            self.counts.unanswered_took_effect += 1
            return True
        timeline.drop(write)
        if standing != timeline.state:
            raise LostWriteError(f"{person.id}: {standing} {version}, not {timeline.state} {person.version}")
        return False

    async def _read(self, person: Person) -> tuple[Standing, int | None]:
        """What Auth holds of a member, as soon as it answers; no version where it knows no such member."""

        async def asked() -> httpx.Response | None:
            try:
                return await self._auth("GET", f"/memberships/{person.id}", token=self.founder.token)
            except httpx.TransportError:
                return None

        answer = await wait_until(
            asked,
            lambda found: found is not None and not found.is_server_error,
            describe="Auth answers again",
            timeout_seconds=_AUTH_BACK_SECONDS,
        )
        if answer is None:
            raise AssertionError("it has answered")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return REMOVED, None
        member = answer.raise_for_status().json()
        return standing_of(member), member["version"]

    def _timeline(self, person: Person) -> Timeline[Standing]:
        return self._oracle.timelines[str(person.id)]

    async def _auth(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if hasattr(self, "company_id"):
            headers["Kisum-Company-Id"] = str(self.company_id)
        return await self._http.request(method, self._system.url("auth", path), json=body, headers=headers)


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
