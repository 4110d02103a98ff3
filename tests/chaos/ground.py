"""What every scenario stands on: an installation of its own, a company in it, load on it, and the oracle."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from subprocess import CompletedProcess
from typing import Final, Generic, TypeVar
from uuid import UUID

import httpx

from access.cache import Cache
from access.digest import Document, documents
from cli import progress
from cli.demo.containers import Containers, running_containers
from cli.demo.rows import documents_of_auth, documents_of_core
from cli.demo.steps import purchase_to_access, sign_up
from cli.demo.story import BOUND_SETTINGS, MODULE, Story
from cli.demo.story import Person as Buyer
from cli.demo.system import Processes, System, running_processes
from cli.registry import load as load_services
from contracts.events.auth import MembershipStatus
from contracts.identifiers import new_id
from tests.chaos.company import Question, Standing, allows, questions
from tests.chaos.load import Company, Load
from tests.chaos.oracle import Oracle
from tests.chaos.people import People
from tests.e2e.kisum import Kisum
from tests.harness.waiting import wait_until

#: How stale Finance may be, instead of 45 s for writes and 300 s for reading: so that a run of minutes judges rights
#: that stood for longer.
BOUND_SECONDS: Final = 10.0
_BOUNDS: Final = dict.fromkeys(BOUND_SETTINGS, f"{BOUND_SECONDS:g}")
#: Run within a container.
_DOCUMENTS: Final = """
import json, sys
from pathlib import Path
from access.cache import Cache
from access.digest import documents
json.dump(list(documents(Cache.open_in_use(Path("/var/lib/kisum/access")))), sys.stdout)
"""
#: Every service with an access cache that follows Auth and Core.
FOLLOWERS: Final = ("finance", "entitlements", "checkout", "access_resolver")
_UNITS: Final = 2
_REQUEST_TIMEOUT_SECONDS: Final = 30.0
_AGREEMENT_SECONDS: Final = 60.0
_WRITING_SECONDS: Final = 120.0


Installed = TypeVar("Installed", bound=System)
#: By kind and key.
Documents = dict[tuple[str, str], Document]


@dataclass(frozen=True)
class Ground(Generic[Installed]):
    """A run of one scenario.

    :ivar command: runs `kisum` as an operator of this installation.
    :ivar cached: what each access cache of a service holds.
    """

    system: Installed
    command: Callable[..., Awaitable[CompletedProcess[str]]]
    cached: Callable[[str], Awaitable[list[Documents]]]
    http: httpx.AsyncClient
    oracle: Oracle[str, Standing, Question]
    load: Load
    company: Company
    random: Random

    @property
    def people(self) -> People:
        return self.company.people

    async def ready(self, *services: str) -> None:
        """Wait until these are."""
        for service in services:
            await wait_until(
                lambda service=service: self.system.problem_of(service),  # type: ignore[misc]
                lambda problem: problem is None,
                describe=f"{service} is ready",
                timeout_seconds=_AGREEMENT_SECONDS,
            )

    async def written(self, more: int) -> None:
        """Wait until so many more writes are acknowledged."""
        wanted = self.people.counts.acknowledged + more
        await wait_until(
            self._acknowledged,
            lambda number: number >= wanted,
            describe=f"{more} more writes are acknowledged",
            timeout_seconds=_WRITING_SECONDS,
        )

    async def other_company(self) -> Story:
        """Another company, whose founder has bought what Finance is in, and uses it."""
        story = Story(self.system, self.http, bound_seconds=BOUND_SECONDS)
        await sign_up(story)
        await purchase_to_access(story)
        return story

    async def agree(self, *services: str) -> None:
        """Wait until the caches of these services are what the rows of Auth and Core say, subject by subject."""
        for service in services:
            await wait_until(
                lambda service=service: self._differing(service),  # type: ignore[misc]
                lambda differing: not differing,
                describe=f"the cache of {service} is what the rows say",
                timeout_seconds=_AGREEMENT_SECONDS,
            )

    async def _acknowledged(self) -> int:
        return self.people.counts.acknowledged

    async def _differing(self, service: str) -> list[tuple[str, str]]:
        """Kind and key of all that a cache and the rows do not agree on."""
        modules = load_services([service])[service].modules
        async with self.system.database("auth") as auth, self.system.database("entitlements") as core:
            rows = await documents_of_auth(auth, modules) | await documents_of_core(core)
        differing: set[tuple[str, str]] = set()
        for held in await self.cached(service):
            # Whom a restored database does not know it has published as removed.
            for subject in held.keys() - rows.keys():
                if subject[0] == "membership" and held[subject]["status"] == MembershipStatus.REMOVED:
                    del held[subject]
            differing |= {each for each in rows.keys() | held.keys() if rows.get(each) != held.get(each)}
        return sorted(differing)


@asynccontextmanager
async def ground(
    folder: Path, seed: int, *, members: int, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Ground[Processes]]:
    """Start an installation and found a company in it, all of whose `members` hold all there is."""
    given = {**_BOUNDS, **(settings or {})}
    async with running_processes(folder, given) as system:
        kisum = Kisum(folder, given)

        async def cached(service: str) -> list[Documents]:
            cache = Cache.open_in_use(system.access_folder(service))
            try:
                return [{(kind, key): document for kind, key, document in documents(cache)}]
            finally:
                cache.close()

        async with _ground_on(system, partial(asyncio.to_thread, kisum.run), cached, seed, members=members) as found:
            yield found


@asynccontextmanager
async def ground_in_containers(folder: Path, seed: int, *, members: int) -> AsyncIterator[Ground[Containers]]:
    """The same on docker-compose.yml, with three brokers and two containers of each service."""
    async with running_containers(folder, _BOUNDS, cluster=True) as system:

        async def command(*arguments: str) -> CompletedProcess[str]:
            """Within each container of the service that is named last."""
            printed = [
                await system.compose("exec", "--no-TTY", "--index", f"{number}", arguments[-1], "kisum", *arguments)
                for number in (1, 2)
            ]
            return CompletedProcess(arguments, 0, "".join(printed), "")

        async def cached(service: str) -> list[Documents]:
            return [
                {
                    (kind, key): document
                    for kind, key, document in json.loads(
                        await system.compose(
                            *("exec", "--no-TTY", "--index", f"{number}", service),
                            *("/opt/kisum/bin/python", "-P", "-c", _DOCUMENTS),
                        )
                    )
                }
                for number in (1, 2)
            ]

        async with _ground_on(system, command, cached, seed, members=members) as found:
            yield found


@asynccontextmanager
async def _ground_on(
    system: Installed,
    command: Callable[..., Awaitable[CompletedProcess[str]]],
    cached: Callable[[str], Awaitable[list[Documents]]],
    seed: int,
    *,
    members: int,
) -> AsyncIterator[Ground[Installed]]:
    random = Random(seed)  # noqa: S311  choices of a test, no secret
    # A proxy in the environment is for other hosts.
    async with httpx.AsyncClient(trust_env=False, timeout=_REQUEST_TIMEOUT_SECONDS) as http:
        oracle = Oracle[str, Standing, Question](allows, bound_seconds=BOUND_SECONDS)
        people = People(system, http, oracle)
        await people.found("Northern Lights Live")
        await _buy(system, http, people)
        expenses = await _put_down_expenses(system, http, people)
        company = Company(people, questions(expenses), tuple(expenses))
        load = Load(company, oracle, random, url=system.url(MODULE, ""), bound_seconds=BOUND_SECONDS)
        for number in range(members):
            await load.grant_all(await people.join(f"member-{number}"))
        found = Ground(system, command, cached, http, oracle, load, company, random)

        async def refused() -> list[str]:
            return load.differing(await load.ask_all())

        await wait_until(refused, lambda found: not found, describe="everybody may do everything")
        progress.line(f"A company of {members} members, each with all rights; seed {seed}\n")
        yield found


async def _buy(system: System, http: httpx.AsyncClient, people: People) -> None:
    """A trial and the add-on, as in the demo."""
    story = Story(system, http, bound_seconds=BOUND_SECONDS)
    story.founder = Buyer(people.founder.id, "the founder", people.founder.token)
    story.company_id = people.company_id
    await purchase_to_access(story)


async def _put_down_expenses(system: System, http: httpx.AsyncClient, people: People) -> dict[str, str]:
    """An expense in each of some business units; its id by the unit."""
    headers = {"Authorization": f"Bearer {people.founder.token}", "Kisum-Company-Id": str(people.company_id)}
    found = {}
    for number in range(_UNITS):
        unit: UUID = new_id()
        body = {
            "description": f"expense {number}",
            "amount": "12.50",
            "currency": "EUR",
            "incurred_on": "2026-01-31",
            "business_unit_id": str(unit),
        }
        sent = {**headers, "Idempotency-Key": str(unit)}
        answer = await http.post(system.url(MODULE, "/expenses"), json=body, headers=sent)
        found[str(unit)] = answer.raise_for_status().json()["id"]
    return found
