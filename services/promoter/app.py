"""Promoter's composition root."""

from pathlib import Path

from chassis.idempotency import forget_idempotency_keys
from chassis.service import Service
from services.promoter.artists.http import artists
from services.promoter.artists.operations import ARTIST_STATES
from services.promoter.events.http import events
from services.promoter.events.operations import EVENT_STATES
from services.promoter.manifest import MANIFEST
from services.promoter.settings import PromoterSettings

service = Service(
    manifest=MANIFEST,
    settings=PromoterSettings,
    routers=(events, artists),
    migrations=Path(__file__).parent / "migrations",
    jobs=(forget_idempotency_keys,),
    sources=lambda _: {states.topic.name: states for states in (EVENT_STATES, ARTIST_STATES)},
    modules=frozenset({MANIFEST.key}),
)
