import asyncio
import os
import time
from typing import Final

import click

from cli import progress
from cli.installation import Installation, home
from cli.registry import load
from contracts.errors import DomainError
from contracts.topics import TOPICS
from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder
from infra.outbox.restores import Restore, ask_for_restore, restore_of
from infra.postgres.database import Database

_POLL_SECONDS: Final = 0.5
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
    asyncio.run(_finish(service))


async def _finish(service: str) -> None:
    database = Database(_database_url(service), application_name="kisum restore", connections_max=1)
    begun = time.monotonic()
    try:
        async with database.unit_of_work() as work:
            asked, was_asked_before = await ask_for_restore(work)
        if asked.refusal is not None:
            progress.line(f"{service} publishes nothing: {asked.refusal}")
        progress.line(
            f"a restore of {service} is under way already; this follows it"
            if was_asked_before
            else f"asked the relay of {service} to publish all that its database says"
        )
        done = await _follow(service, database, asked)
    except DomainError as error:
        raise CannotStart(f"{error.title.lower()}: {error.detail}; what was asked for stays asked for") from error
    finally:
        await database.close()
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


def _database_url(service: str) -> str:
    """Of the installation on this machine; where there is none, as in a container, of the environment."""
    if home().exists():
        return Installation(StateFolder.open(home(), minimum_free_bytes=0)).database_url(service)
    prefix = load([service])[service].settings.model_config["env_prefix"]
    url = os.environ.get(f"{prefix}DATABASE_URL")
    if url is None:
        raise CannotStart(f"there is no installation in {home()}, and {prefix}DATABASE_URL is not set")
    return url
