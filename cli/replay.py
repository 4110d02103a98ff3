import threading
import time
from typing import Final

import click

from access.folder import holder_of
from cli.cache import cache_of, service_argument
from infra.embedded.errors import CannotStart

_POLL_SECONDS: Final = 0.1
#: How long nobody may keep the cache before nobody is waited for: another worker takes over within a second.
_ABANDONED_SECONDS: Final = 15.0


@click.command()
@service_argument
@click.option(
    "--projection", type=click.Choice(["access"]), default="access", show_default=True, help="What is filled anew."
)
def replay(service: str, projection: str) -> None:
    """Fill the access cache of SERVICE again from the beginning of the log, while the old one goes on serving."""
    with cache_of(service) as found:
        keeper = found.keeper()
        begun = time.monotonic()
        request = found.cache.ask_for_rebuild()
        click.echo(f"process {keeper} fills the {projection} cache of {service} from the log ...")
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
