"""Who is in the story, and what they do more than once."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import httpx

from cli.demo.poller import Poller
from cli.demo.system import System, committed_at
from cli.demo.waiting import StepFailedError, wait_until

#: The module the story is about.
MODULE: Final = "finance"
#: How stale its access state may be, in seconds, for writes and for reading.
BOUND_SETTINGS: Final = (
    "KISUM_FINANCE_ACCESS_HARD_BOUND_SECONDS",
    "KISUM_FINANCE_ACCESS_HARD_READING_BOUND_SECONDS",
)
_EXPENSES: Final = "/expenses?limit=1"
#: Judged like any question for expenses, and then refused for what it asks before a row is read: a caller who asks a
#: thousand times a second must not be the load that is measured.
_CHEAP_QUESTION: Final = "/expenses?limit=0"


@dataclass(frozen=True)
class Person:
    """Somebody who signed up and in."""

    id: UUID
    name: str
    token: str = field(repr=False)


class Story:
    """What the steps tell one another. `bound_seconds` is how stale Finance's access state may be in this run."""

    def __init__(self, system: System, http: httpx.AsyncClient, *, bound_seconds: float) -> None:
        self.system = system
        self.bound_seconds = bound_seconds
        self._http = http
        self.founder: Person
        self.colleague: Person
        #: When Auth and Core were killed, by the monotonic clock in seconds.
        self.killed_at: float
        self.company_id: UUID | None = None

    async def call(
        self, method: str, service: str, path: str, body: Any = None, *, person: Person | None = None
    ) -> httpx.Response:
        """One request, of a person for the company where there is one."""
        return await self._http.request(
            method,
            self.system.url(service, path),
            json=body,
            headers=self._headers(person) if person else None,
        )

    async def done(
        self, method: str, service: str, path: str, body: Any = None, *, person: Person | None = None
    ) -> Any:
        """The body of a request that has to succeed. Raises StepFailedError."""
        answer = await self.call(method, service, path, body, person=person)
        if not answer.is_success:
            raise StepFailedError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    async def expenses(self, person: Person) -> httpx.Response:
        """What Finance answers to somebody who asks for the newest expense."""
        return await self.call("GET", MODULE, _EXPENSES, person=person)

    async def expenses_until(self, person: Person, status: int, code: str | None = None) -> httpx.Response:
        """Ask until that is the answer."""
        return await wait_until(
            lambda: self.expenses(person),
            lambda answer: answer.status_code == status and (code is None or answer.json()["code"] == code),
            describe=f"Finance answers {person.name} {status} {code or ''}",
            show=lambda answer: f"{answer.status_code} {answer.text}",
        )

    def polling(self, person: Person) -> AbstractAsyncContextManager[Poller]:
        """Somebody who asks for the newest expense every millisecond."""
        return Poller(self.system.url(MODULE, _CHEAP_QUESTION), self._headers(person))

    async def sign_up(self, name: str) -> Person:
        """A new person, signed in."""
        email, password = f"{name.lower()}-{uuid4().hex[:12]}@example.com", uuid4().hex
        person = await self.done("POST", "auth", "/users", {"email": email, "password": password, "display_name": name})
        tokens = await self.done("POST", "auth", "/token", {"email": email, "password": password})
        return Person(UUID(person["id"]), name, tokens["access_token"])

    async def buy(self, order: Mapping[str, Any]) -> None:
        """Open a session, pay at the provider's page, and wait for its webhook to have completed the session."""
        # The founding has to reach Checkout, and Core's catalog has.
        opened = await wait_until(
            lambda: self.call("POST", "checkout", "/sessions", order, person=self.founder),
            lambda answer: answer.is_success,
            describe="Checkout opens a session",
            show=lambda answer: f"{answer.status_code} {answer.text}",
            fails=lambda answer: answer.status_code not in {201, 403, 503},
        )
        session = opened.json()
        confirmed = await self._http.post(f"{session['pay_url']}/confirm")
        if not confirmed.is_success:
            raise StepFailedError(f"the payment: {confirmed.status_code} {confirmed.text}")
        await wait_until(
            lambda: self.done("GET", "checkout", f"/sessions/{session['id']}", person=self.founder),
            lambda read: bool(read["status"] == "completed"),
            describe="the webhook completes the session",
            fails=lambda read: read["status"] not in {"open", "completed"},
        )

    async def grant(self, permissions: Mapping[str, datetime | None]) -> None:
        """Set all permissions the colleague has in Finance, each with its end or None."""
        await self.done(
            "PUT",
            "auth",
            f"/memberships/{self.colleague.id}/permissions",
            {
                "module": MODULE,
                "permissions": {key: end.isoformat() if end else None for key, end in permissions.items()},
            },
            person=self.founder,
        )

    async def granted_at(self) -> datetime:
        """When PostgreSQL committed the newest state of the colleague's membership."""
        return await committed_at(
            self.system, "auth", "memberships", company_id=self.company_id, user_id=self.colleague.id
        )

    async def ready(self, *services: str) -> None:
        """Wait until these are."""
        for service in services:
            await wait_until(
                lambda service=service: self.system.problem_of(service),  # type: ignore[misc]
                lambda problem: problem is None,
                describe=f"{service} is ready",
                timeout_seconds=60,
            )

    def _headers(self, person: Person) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {person.token}"}
        if self.company_id is not None:
            headers["Kisum-Company-Id"] = str(self.company_id)
        return headers
