import asyncio

import click

from cli.installation import Installation, home
from cli.registry import load
from cli.running import running
from contracts.errors import DomainError
from infra.clock import utc_now
from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder
from infra.postgres.database import Database
from services.auth.memberships.operations import PlatformAdmin, add_platform_admin


@click.group()
def admins() -> None:
    """The admins of the whole platform."""


@admins.command()
@click.argument("email")
def add(email: str) -> None:
    """Make the person who signed up as EMAIL a platform admin.

    It needs no sign-in: whoever may read the state folder holds every secret of this installation already.
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
    load(["auth"])  # All of its tables: they refer to one another.
    state = StateFolder.open(home())
    running(state)
    installation = Installation(state)
    database = Database(installation.database_url("auth"), application_name="kisum admins", connections_max=1)
    try:
        async with database.unit_of_work() as work:
            return await add_platform_admin(work, email=email, now=utc_now())
    finally:
        await database.close()
