"""Checkout's composition root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from chassis.service import Service
from infra.clock import Clock
from infra.postgres.database import Database
from services.checkout.consumers import CONSUMERS
from services.checkout.jobs import JOBS
from services.checkout.manifest import MANIFEST
from services.checkout.offline_provider.http import offline_provider
from services.checkout.offline_provider.operations import Courier, OfflineProvider
from services.checkout.provider import PaymentProvider
from services.checkout.sessions.http import sessions
from services.checkout.settings import CheckoutSettings
from services.checkout.subscriptions.http import subscriptions
from services.checkout.webhooks.http import webhooks

_HERE: Final = Path(__file__).parent
_WEBHOOK_TIMEOUT_SECONDS: Final = 10.0


def _compose(settings: CheckoutSettings, database: Database, clock: Clock) -> Mapping[type, Any]:
    public, own = (
        f"{str(url).rstrip('/')}{MANIFEST.route_group}"
        for url in (settings.public_url, settings.webhook_url or settings.public_url)
    )
    return {
        CheckoutSettings: settings,
        PaymentProvider: OfflineProvider(f"{public}/provider"),
        Courier: Courier(
            database,
            # A proxy in the environment is for other hosts: this one may not be reached through it.
            httpx.AsyncClient(timeout=_WEBHOOK_TIMEOUT_SECONDS, trust_env=False),
            address=f"{own}/webhooks/offline",
            secret=settings.webhook_secret.get_secret_value(),
            clock=clock,
        ),
    }


service = Service(
    manifest=MANIFEST,
    settings=CheckoutSettings,
    routers=(sessions, subscriptions, webhooks, offline_provider),
    jobs=JOBS,
    compose=_compose,
    migrations=_HERE / "migrations",
    consumers=CONSUMERS,
)
