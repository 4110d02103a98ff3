"""What there is on this machine: an installation, or, as in a container, the environment of one service."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chassis.service import Service
from chassis.settings import Settings, SettingsError, read_settings
from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder

if TYPE_CHECKING:
    from cli.installation import Installation

#: Settings tell where a service is served, which commands have nothing to do with; but an address they must be.
_ANYWHERE: Final = "http://127.0.0.1"


def home() -> Path:
    """$KISUM_HOME, or `.kisum` in this checkout."""
    given = os.environ.get("KISUM_HOME")
    return Path(given).expanduser().absolute() if given else Path(__file__).parents[1] / ".kisum"


def installation_here() -> "Installation | None":
    """The installation on this machine, or None where there is none, as in a container."""
    if not home().exists():
        return None
    # Not before: an image has none of the packages an installation runs its servers with.
    from cli.installation import Installation  # noqa: PLC0415

    return Installation(StateFolder.open(home(), minimum_free_bytes=0))


def settings_of(service: Service[Settings]) -> Settings:
    """Of the installation on this machine; where there is none, as in a container, of the environment.

    Raises CannotStart where neither has them.
    """
    prefix = service.settings.model_config["env_prefix"]
    here = installation_here()
    given = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
    if here is not None:
        given = here.environment(service, _ANYWHERE)
    try:
        return read_settings(
            service.settings, **{name.removeprefix(prefix).lower(): value for name, value in given.items()}
        )
    except SettingsError:
        raise CannotStart(
            f"there is no installation in {home()}, and the environment does not hold the settings of {service.name}"
        ) from None
