"""`kisum restore`: what an operator says and asks of databases that were restored."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import asyncpg
import click
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from cli import progress
from cli.here import home, installation_here
from cli.registry import load
from contracts.topics import TOPICS
from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder
from infra.outbox.restores import Restore, ask_for_restore, restore_of
from infra.outbox.tables import publisher, restores
from infra.postgres.database import Database, DatabaseUnavailableError

if TYPE_CHECKING:
    from cli.installation import Installation

_POLL_SECONDS: Final = 0.5
#: Where an address does not say.
_POSTGRES_PORT: Final = 5432
#: A relay takes it up within a second or two of leading.
_UNHEARD_SECONDS: Final = 10.0
_PUBLISHERS: Final = sorted({topic.owner for topic in TOPICS if not topic.dead_letters and not topic.other_writers})


@click.group()
def restore() -> None:
    """Databases that were restored."""


@restore.command()
@click.argument("service", type=click.Choice(_PUBLISHERS))
def finish(service: str) -> None:
    """Say that what the database of SERVICE holds is the truth, after it was restored, recovered or moved.

    Its relay then publishes all of it under a new epoch, and withdraws what the log holds besides. Until that is done
    readers answer 503 for what they know of older epochs. It may be interrupted and run again at any time.
    """
    asyncio.run(_finish(_place_of(service)))


@restore.command()
@click.argument("service", type=click.Choice(_PUBLISHERS), required=False)
def status(service: str | None) -> None:
    """Say of SERVICE, or of every service that publishes, whether it does; exit status 1 where one does not."""
    places = [_place_of(name) for name in ([service] if service else _PUBLISHERS)]
    problems = asyncio.run(_problems(places))
    for place, problem in zip(places, problems, strict=True):
        click.echo(f"  {place.service:20} {problem or 'publishes'}")
    sys.exit(1 if any(problems) else 0)


async def held_back(installation: "Installation", services: Iterable[str]) -> dict[str, str]:
    """Which of these services publish nothing, or not all yet, because their database was restored, and what to do.

    Of one whose database is away nothing is said.
    """
    found: dict[str, str] = {}
    for service in sorted(set(services) & set(_PUBLISHERS)):
        try:
            problem = await _problem_of(_Place(service, installation.database_url(service), installation.state))
        except CannotStart:
            continue
        if problem is not None:
            found[service] = problem
    return found


@dataclass(frozen=True)
class _Place:
    """Where the database of a service is; of an installation on this machine where there is a state folder."""

    service: str
    url: str
    state: StateFolder | None

    def unreachable(self) -> str:
        """That it is away, and what to do about it."""
        address = urlsplit(self.url)
        where = f"{address.hostname or 'localhost'}:{address.port or _POSTGRES_PORT}"
        away = f"the database of {self.service} cannot be reached at {where}"
        if self.state is None:
            return (
                f"{away}: see that PostgreSQL runs there, and that {_variable(self.service)} is right, then try again"
            )
        if self.state.holder_pid() is None:
            return f"{away}: Kisum is not running in {self.state.path}; start it with `kisum up`, then try again"
        return f"{away}: PostgreSQL is away or starting ({self.state.log_path('postgres')} tells why); try again"


def _place_of(service: str) -> _Place:
    """Of the installation on this machine; where there is none, as in a container, of the environment."""
    here = installation_here()
    if here is not None:
        return _Place(service, here.database_url(service), here.state)
    url = os.environ.get(_variable(service))
    if url is None:
        raise CannotStart(f"there is no installation in {home()}, and {_variable(service)} is not set")
    return _Place(service, url, None)


def _variable(service: str) -> str:
    return f"{load([service])[service].settings.model_config['env_prefix']}DATABASE_URL"


@asynccontextmanager
async def _opened(place: _Place) -> AsyncIterator[Database]:
    """Raises CannotStart where the database cannot be reached, or is not the one of the service."""
    database = Database(place.url, application_name="kisum restore", connections_max=1)
    try:
        yield database
    except DatabaseUnavailableError as error:
        raise CannotStart(place.unreachable()) from error
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        raise CannotStart(f"the database of {place.service} refuses: {' '.join(str(cause).split())}") from error
    finally:
        await database.close()


async def _problems(places: Iterable[_Place]) -> list[str | None]:
    return [await _problem_of(place) for place in places]


async def _problem_of(place: _Place) -> str | None:
    """Why a service does not publish what its database holds, and the command for it. Raises CannotStart."""
    command = f"`kisum restore finish {place.service}`"
    async with _opened(place) as database, database.unit_of_work() as work:
        open_id = await work.scalar(select(restores.c.id).where(restores.c.finished_at.is_(None)).limit(1))
        if open_id is not None:
            known = await restore_of(work, open_id)
            return (
                f"a restore is under way, {known.republished} states published again,"
                f" {known.withdrawn} withdrawn: {command} follows it"
            )
        refusal = await work.scalar(select(publisher.c.refusal))
    if refusal is None:
        return None
    return f"publishes nothing: {refusal}. If what the database holds is the truth now: {command}"


async def _finish(place: _Place) -> None:
    service, begun = place.service, time.monotonic()
    async with _opened(place) as database:
        async with database.unit_of_work() as work:
            asked, was_asked_before = await ask_for_restore(work)
        if asked.refusal is not None:
            progress.line(f"{service} publishes nothing: {asked.refusal}")
        progress.line(
            f"a restore of {service} is under way already; this follows it"
            if was_asked_before
            else f"asked the relay of {service} to publish all that its database says"
        )
        try:
            done = await _follow(service, database, asked)
        except DatabaseUnavailableError as error:
            raise CannotStart(f"{place.unreachable()}; what was asked for stays asked for") from error
    progress.line(
        f"done after {time.monotonic() - begun:.1f} s: epoch {done.epoch} is complete,"
        f" {done.republished} states published again, {done.withdrawn} withdrawn"
    )


async def _follow(service: str, database: Database, asked: Restore) -> Restore:
    """Tell how far it is until it is finished."""
    known, begun, is_missed = asked, time.monotonic(), False
    while not known.is_finished:
        await asyncio.sleep(_POLL_SECONDS)
        async with database.unit_of_work() as work:
            found = await restore_of(work, asked.id)
        if found.epoch is not None and found.epoch != known.epoch:
            progress.line(f"the epoch is {found.epoch}, after {found.epoch_before}")
        if (found.republished, found.withdrawn) != (known.republished, known.withdrawn):
            progress.line(f"  {found.republished} states published again, {found.withdrawn} withdrawn")
        if found.epoch is None and not is_missed and time.monotonic() - begun > _UNHEARD_SECONDS:
            progress.line(f"  no relay of {service} has begun: it does so when the service runs and reaches Kafka")
            is_missed = True
        known = found
    return known
