"""The declaration of a service: all that `kisum serve`, migrations, documents and tests need to know of it."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from fastapi import APIRouter

from chassis.manifest import Manifest
from chassis.projections import Projection
from chassis.seeds import Seed
from chassis.settings import Settings
from infra.clock import Clock
from infra.kafka.work import WorkConsumer
from infra.outbox.source import StateSource
from infra.postgres.database import Database


def _nothing(_settings: Any, _database: Database, _clock: Clock) -> Mapping[type, Any]:
    return {}


def _no_sources(_components: Mapping[type, Any]) -> Mapping[str, StateSource]:
    return {}


#: Given the service's components, its database and the clock.
Job = Callable[[Mapping[type, Any], Database, Clock], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Service(Generic[Settings]):
    """One service.

    :param migrations: the folder of the service's Alembic versions.
    :param compose: builds the service's own parts from its settings, its database and the clock; what it returns, by
        type, is what handlers ask for with `chassis.request.component`. A service without an access cache puts its
        Chain among them.
    :param consumers: the work it does for events of others.
    :param projections: the copies it keeps of what others publish.
    :param jobs: its time-driven work: each runs beside the application until it ends by itself or the application does.
    :param sources: given the service's components, the rows behind each state topic it owns, by the topic's name.
    :param modules: the modules whose grants its access cache keeps.
    """

    manifest: Manifest
    settings: type[Settings]
    routers: tuple[APIRouter, ...]
    migrations: Path
    compose: Callable[[Settings, Database, Clock], Mapping[type, Any]] = _nothing
    seeds: tuple[Seed, ...] = field(default=())
    consumers: tuple[WorkConsumer, ...] = ()
    projections: tuple[Projection, ...] = ()
    jobs: tuple[Job, ...] = ()
    sources: Callable[[Mapping[type, Any]], Mapping[str, StateSource]] = _no_sources
    modules: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.manifest.key
