"""The declaration of a service: all that `kisum serve`, migrations, documents and tests need to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from fastapi import APIRouter

from chassis.manifest import Manifest
from chassis.seeds import Seed
from chassis.settings import Settings
from infra.clock import Clock
from infra.postgres.database import Database


@dataclass(frozen=True)
class Service(Generic[Settings]):
    """One service.

    :param compose: builds the service's own parts from its settings, its database and the clock; what it returns, by
        type, is what handlers ask for with `chassis.request.component`. TokenVerifier must be among them.
    :param migrations: the folder of the service's Alembic versions.
    """

    manifest: Manifest
    settings: type[Settings]
    routers: tuple[APIRouter, ...]
    compose: Callable[[Settings, Database, Clock], Mapping[type, Any]]
    migrations: Path
    seeds: tuple[Seed, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.manifest.key
