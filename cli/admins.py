import asyncio

import click

from cli.here import installation_here, settings_of
from cli.registry import load
from cli.running import running
from contracts.errors import DomainError
from infra.clock import utc_now
from infra.embedded.errors import CannotStart
from infra.postgres.database import Database
from services.auth.memberships.operations import PlatformAdmin, add_platform_admin


@click.group()
def admins() -> None:
    """The admins of the whole platform."""


@admins.command()
@click.argument("email")
def add(email: str) -> None:
    """Make the person who signed up as EMAIL a platform admin.

    It needs no sign-in: whoever may read the state folder, or the environment of Auth's container, holds every secret
    of it already.
    """
    try:
        admin = asyncio.run(_add(email))
    except DomainError as error:
        raise CannotStart(f"{error.title.lower()}: {error.detail}") from error
    if admin.was_one_before:
        click.echo(f"{admin.user_id} is a platform admin already")
    else:
        click.echo(f"{admin.user_id} is a platform admin now")


async def _add(email: str) -> PlatformAdmin:
    auth = load(["auth"])["auth"]  # All of its tables: they refer to one another.
    here = installation_here()
    if here is not None:
        running(here.state)
    url = settings_of(auth).database_url.get_secret_value()
    database = Database(url, application_name="kisum admins", connections_max=1)
    try:
        async with database.unit_of_work() as work:
            return await add_platform_admin(work, email=email, now=utc_now())
    finally:
        await database.close()
