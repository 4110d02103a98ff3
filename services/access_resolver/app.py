"""The resolver's composition root."""

from pathlib import Path

from chassis.service import Service
from contracts.services import MODULES
from services.access_resolver.access.http import access
from services.access_resolver.manifest import MANIFEST
from services.access_resolver.settings import AccessResolverSettings

service = Service(
    manifest=MANIFEST,
    settings=AccessResolverSettings,
    routers=(access,),
    migrations=Path(__file__).parent / "migrations",
    modules=frozenset(MODULES),
)
