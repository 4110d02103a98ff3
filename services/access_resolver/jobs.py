"""What the resolver does all the time: it listens to the fleet."""

from collections.abc import Mapping
from typing import Any, Final

from infra.clock import Clock
from infra.postgres.database import Database
from services.access_resolver.fleet.operations import Fleet


async def follow_fleet(components: Mapping[type, Any], _: Database, __: Clock) -> None:
    """Until cancelled."""
    fleet: Fleet = components[Fleet]
    await fleet.follow()


JOBS: Final = (follow_fleet,)
