import asyncio
import threading
import time
from typing import Any, Final

import click

from access.folder import holder_of
from chassis.projections import Projection, Replayed
from chassis.service import Service
from chassis.settings import ServiceSettings
from cli.cache import cache_of, service_argument
from cli.here import settings_of
from cli.registry import load
from infra.embedded.errors import CannotStart
from infra.kafka.clients import KafkaClients
from infra.outbox.log import LogUnavailableError
from infra.postgres.database import Database, DatabaseUnavailableError
from infra.telemetry.logging import configure_terminal

_ACCESS: Final = "access"
_POLL_SECONDS: Final = 0.1
#: How long nobody may keep the cache before nobody is waited for: another worker takes over within a second.
_ABANDONED_SECONDS: Final = 15.0


@click.command()
@service_argument
@click.option(
    "--projection",
    metavar="NAME",
    default=_ACCESS,
    show_default=True,
    help="What is filled again: the access cache, or the copy SERVICE keeps of a topic, by the topic's name.",
)
def replay(service: str, projection: str) -> None:
    """Fill what SERVICE keeps of a log again from its beginning, while it goes on serving.

    It may be interrupted and run again at any time.
    """
    if projection == _ACCESS:
        _replay_access(service)
    else:
        _replay_projection(load([service])[service], projection)


def _replay_access(service: str) -> None:
    with cache_of(service) as found:
        keeper = found.keeper()
        begun = time.monotonic()
        request = found.cache.ask_for_rebuild()
        click.echo(f"process {keeper} fills the access cache of {service} from the log ...")
        pause = threading.Event()
        seen = begun
        while found.cache.rebuilds()[1] < request:
            now = time.monotonic()
            if holder_of(found.settings.access_folder).is_writing:
                seen = now
            elif now - seen > _ABANDONED_SECONDS:
                raise CannotStart(f"{service} has stopped meanwhile; it goes on when it is started again")
            pause.wait(_POLL_SECONDS)
        generation = found.cache.head().generation
    click.echo(f"done after {time.monotonic() - begun:.1f} s: generation {generation} decides now")


def _replay_projection(service: Service[Any], name: str) -> None:
    kept = {projection.name: projection for projection in service.projections}
    if name not in kept:
        raise CannotStart(f"{service.name} keeps no copy of {name!r}; it keeps: {', '.join([_ACCESS, *kept])}")
    configure_terminal()
    settings = settings_of(service)
    begun = time.monotonic()
    click.echo(f"fills {service.name}'s copy of {name} from the log ...")
    try:
        replayed = asyncio.run(_replayed(service.name, kept[name], settings))
    except DatabaseUnavailableError as error:
        raise CannotStart(f"the database of {service.name} cannot be reached ({error.detail}); try again") from None
    except LogUnavailableError as error:
        raise CannotStart(f"{name} cannot be read to its end ({error}); try again") from None
    click.echo(
        f"done after {time.monotonic() - begun:.1f} s: {replayed.applied} states are as the log has them,"
        f" {replayed.removed} rows it does not tell of were removed"
    )
    if replayed.unreadable:
        click.echo(f"{replayed.unreadable} records cannot be read by this version: see the service's dead letters")


async def _replayed(service: str, projection: Projection, settings: ServiceSettings) -> Replayed:
    database = Database(
        settings.database_url.get_secret_value(), application_name=f"kisum replay {service}", connections_max=2
    )
    try:
        return await projection.replay(database, KafkaClients(settings.kafka))
    finally:
        await database.close()
