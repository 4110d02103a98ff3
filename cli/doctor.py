import sys

import click

from cli.here import home
from infra.embedded.checks import checks


@click.command()
def doctor() -> None:
    """Check what a start needs, one line each; exit status 1 where something is missing."""
    results = checks(home())
    for check in results:
        click.echo(f"  {'ok ' if check.ok else 'NOT'}  {check.name:20} {check.detail}")
    sys.exit(0 if all(check.ok for check in results) else 1)
