"""A service's HTTP application on its own database, and people who call it; access as if its feed had brought it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from chassis.application import build_app
from chassis.service import Service
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from infra.postgres.database import Database
from middleware.chain import cached_chain
from middleware.identity import Identity
from middleware.token import SigningKey, TokenIssuer
from tests.harness.access import grant, signing_key
from tests.harness.clock import FakeClock
from tests.harness.local_access import LocalAccess, local_access
from tests.harness.modules import file_settings
from tests.harness.runtime import Runtime
from tests.harness.services import service_database

KEY = Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class Person:
    """Somebody with a token, acting in one company."""

    user_id: UserId
    company_id: CompanyId
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Kisum-Company-Id": str(self.company_id)}


@dataclass(frozen=True)
class CalledService:
    """Without its relay and its consumers: `client` calls the application in this process."""

    app: FastAPI
    client: httpx.AsyncClient
    access: LocalAccess
    database: Database

    @property
    def clock(self) -> FakeClock:
        return self.access.clock

    async def person(self, company_id: UUID | None = None, *, superadmin: bool = False) -> Person:
        """A member of a company, of a new one unless told."""
        user_id, company = UserId(new_id()), CompanyId(company_id or new_id())
        self.access.hold(grant(user_id, superadmin=superadmin), company_id=company)
        return await self.signed_in(user_id, company)

    async def signed_in(self, user_id: UserId, company: CompanyId) -> Person:
        """The person with a token of this moment."""
        issuer = TokenIssuer(issuer="test", audience="kisum", lifetime=timedelta(minutes=5), signing_key=_key)
        identity = Identity(user_id=user_id, session_id=new_id(), generation=1)
        return Person(user_id, company, (await issuer.issue(identity, self.clock())).token)

    async def platform_admin(self) -> Person:
        return await self.person(PLATFORM_COMPANY_ID, superadmin=True)


async def _key() -> SigningKey:
    return SigningKey("k1", KEY)


@asynccontextmanager
async def called_service(
    runtime: Runtime,
    service: Service[Any],
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    is_fenced: bool = True,
) -> AsyncIterator[CalledService]:
    """A service as `kisum serve` builds it, on a clock that stands still, before its background parts are started.

    Unfenced it comes to PostgreSQL as the administrator, from whom row-level security hides no company.
    """
    created = await service_database(runtime, service)
    administrator_url = urlsplit(runtime.administrator_url)._replace(path=f"/{created.name}").geturl()
    with local_access(folder) as local:
        local.hold(signing_key("k1", KEY))
        app = build_app(
            service,
            service.settings(
                database_url=created.url(runtime.administrator_url) if is_fenced else administrator_url,
                kafka_bootstrap_servers="127.0.0.1:1",
                kafka_username=service.name,
                kafka_password="none",
                token_issuer="test",
                token_audience="kisum",
                root_public_key="A" * 43,
                access_folder=folder / "unused",
                **file_settings(service, folder),
                **(settings or {}),
            ),
            clock=local.clock,
        )
        app.state.access_path = local.path
        app.state.chain = cached_chain(local.path, issuer="test", audience="kisum", clock=local.clock)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://kisum.test") as client:
            try:
                yield CalledService(app, client, local, app.state.database)
            finally:
                await app.state.database.close()
