"""`kisum cache`: looks at the access cache of a service from outside, in its folder and never over HTTP."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import click

from access.cache import Cache
from access.folder import Holder, NoCacheError, holder_of
from access.freshness import OWNERS, SECOND, Clocks
from access.path import readiness
from access.records import subject_of
from access.verification import CacheBehindError, verify
from chassis.service import Service
from chassis.settings import AccessSettings
from cli.here import settings_of
from cli.registry import load, service_names
from infra.embedded.errors import CannotStart
from infra.kafka.clients import KafkaClients
from infra.telemetry.logging import configure_terminal

_DIFFERENCES_SHOWN_MAX: Final = 50


@dataclass(frozen=True)
class ServiceCache:
    """The cache of a service, and who keeps it."""

    service: Service[Any]
    settings: AccessSettings
    cache: Cache
    holder: Holder

    def keeper(self) -> int:
        """The process that follows the log. Raises CannotStart where none does."""
        if not self.holder.is_writing:
            raise CannotStart(f"{self.service.name} is not running: nobody follows the log for its cache")
        return self.holder.pid


@contextmanager
def cache_of(name: str) -> Iterator[ServiceCache]:
    """The cache that a service on this machine has in use, or left behind. Raises CannotStart where there is none."""
    service = load([name])[name]
    if not issubclass(service.settings, AccessSettings):
        raise CannotStart(f"{name} has no access cache: it judges by its own rows")
    settings: AccessSettings = settings_of(service)
    try:
        holder = holder_of(settings.access_folder)
        cache = Cache.open_in_use(settings.access_folder)
    except NoCacheError:
        raise CannotStart(f"{name} has no cache in {settings.access_folder}: it never ran here") from None
    try:
        yield ServiceCache(service, settings, cache, holder)
    finally:
        cache.close()


service_argument = click.argument("service", type=click.Choice(service_names()))


@click.group()
def cache() -> None:
    """What services know of the access state."""


@cache.command()
@service_argument
def status(service: str) -> None:
    """Say whether SERVICE can decide and how old what it knows is; exit status 1 where it cannot."""
    with cache_of(service) as found:
        head = found.cache.head()
        clocks = Clocks.of()
        ready = readiness(head, clocks, found.settings.bounds)
        asked, done = found.cache.rebuilds()
        partitions = ", ".join(sorted(f"{topic}/{number}" for topic, number in found.cache.blocked_partitions()))
        keeper = f"process {found.holder.pid}" if found.holder.is_writing else "nobody: the service does not run"
        ages = {name: owner.age(clocks.boot_us()) for name, owner in zip(OWNERS, head.owners, strict=True)}
        click.echo(f"{service} is {'ready' if ready.is_ready else f'not ready: {ready.why}'}")
        click.echo(f"  written by   {keeper}")
        click.echo(f"  generation   {head.generation}, {'complete' if head.complete else 'still loading'}")
        click.echo(f"  rebuild      {'none is under way' if asked == done else 'asked for, under way'}")
        for name, age in ages.items():
            click.echo(f"  {name:12} {'never heard of' if age is None else f'{age / SECOND:.1f} s old'}")
        click.echo(f"  quarantine   {len(found.cache.flags())} subjects, partitions: {partitions or 'none'}")
        click.echo("  positions")
        for (topic, number), offset in sorted(found.cache.positions(head.active).items()):
            click.echo(f"    {f'{topic}/{number}':30} {offset}")
    sys.exit(0 if ready.is_ready else 1)


@cache.command()
@service_argument
def quarantine(service: str) -> None:
    """List what SERVICE answers 503 for because it could not be read, and why."""
    with cache_of(service) as found:
        flags, blocks = found.cache.flags(), found.cache.blocks()
        for flag in flags:
            kind, subject = subject_of(flag.key)
            click.echo(f"{kind:12} {subject}  {flag.why}")
        for (topic, number), record_key in blocks:
            click.echo(f"{'partition':12} {topic}/{number}  the key {record_key!r} names nobody")
        if not flags and not blocks:
            click.echo(f"Nothing is in quarantine in {service}.")


@cache.command(name="verify")
@service_argument
def verify_cache(service: str) -> None:
    """Read the log again and compare it with the cache of SERVICE; exit status 1 where they differ."""
    configure_terminal()
    with cache_of(service) as found:
        found.keeper()
        try:
            outcome = asyncio.run(
                verify(
                    found.cache,
                    service=service,
                    modules=found.service.modules,
                    kafka=KafkaClients(found.settings.kafka),
                    root_key=found.settings.root_key,
                )
            )
        except CacheBehindError as error:
            raise CannotStart(f"nothing was compared: {error}") from None
    differing = outcome.differences
    if not differing:
        click.echo(f"equal: the cache of {service} holds what the log says of {outcome.subjects} subjects")
        return
    click.echo(f"{len(differing)} of {outcome.subjects} subjects differ; (epoch, version) in the cache and in the log:")
    for each in differing[:_DIFFERENCES_SHOWN_MAX]:
        click.echo(f"  {each.kind:12} {each.subject}  {each.in_cache or 'none'}  {each.in_log or 'none'}")
    if len(differing) > _DIFFERENCES_SHOWN_MAX:
        click.echo(f"  and {len(differing) - _DIFFERENCES_SHOWN_MAX} more")
    sys.exit(1)
