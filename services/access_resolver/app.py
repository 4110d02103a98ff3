"""The resolver's composition root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chassis.application import AppliedListener
from chassis.service import Service
from contracts.services import MODULES
from infra.clock import Clock
from infra.kafka.clients import KafkaClients
from infra.postgres.database import Database
from services.access_resolver.access.http import access
from services.access_resolver.fleet.http import fleet
from services.access_resolver.fleet.operations import Fleet
from services.access_resolver.jobs import JOBS
from services.access_resolver.manifest import MANIFEST
from services.access_resolver.settings import AccessResolverSettings


def _compose(settings: AccessResolverSettings, _: Database, clock: Clock) -> Mapping[type, Any]:
    heard = Fleet(KafkaClients(settings.kafka), clock)
    return {Fleet: heard, AppliedListener: heard}


service = Service(
    manifest=MANIFEST,
    settings=AccessResolverSettings,
    routers=(access, fleet),
    jobs=JOBS,
    compose=_compose,
    migrations=Path(__file__).parent / "migrations",
    modules=frozenset(MODULES),
)
