"""Finance with its neighbours played: every event it decides by comes from the test."""

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis.application import build_app
from contracts.identifiers import CompanyId, UserId, new_id
from middleware.identity import Identity
from middleware.token import SigningKey, TokenIssuer
from services.finance.app import service
from services.finance.settings import FinanceSettings
from tests.harness.access import ROOT_KEY, Sources, access_sources, catalog, entitled, grant, signing_key
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.harness.waiting import wait_until

KEY = Ed25519PrivateKey.generate()
ALL = ("finance.expenses.read", "finance.expenses.write")


async def _signing_key() -> SigningKey:
    return SigningKey("key-1", KEY)


ISSUER = TokenIssuer(issuer="test", audience="kisum", lifetime=timedelta(minutes=10), signing_key=_signing_key)


@dataclass
class Finance:
    client: httpx.AsyncClient
    sources: Sources
    database_url: str

    async def person(
        self, company_id: CompanyId | None = None, *, scopes: Mapping[str, Any] | None = None, permissions: Any = ALL
    ) -> "Person":
        """A member of a company that has finance, once this service knows."""
        company = company_id or CompanyId(new_id())
        person = Person(self, company, UserId(new_id()))
        await self.sources.publish(entitled("finance"), company_id=company)
        await self.sources.publish(grant(person.user_id, permissions=permissions, scopes=scopes), company_id=company)
        await person.until_known()
        return person


@dataclass
class Person:
    finance: Finance
    company_id: CompanyId
    user_id: UserId

    async def call(
        self,
        method: str,
        path: str,
        *,
        company_id: UUID | None = None,
        headers: Mapping[str, str] | None = None,
        **given: Any,
    ) -> httpx.Response:
        token = await ISSUER.issue(Identity(self.user_id, new_id(), 1), datetime.now(UTC))
        own = {"Authorization": f"Bearer {token.token}", "Kisum-Company-Id": str(company_id or self.company_id)}
        sent = {**own, **(headers or {})}
        return await self.finance.client.request(method, f"/api/finance{path}", headers=sent, **given)

    async def until_known(self) -> None:
        async def answer() -> int | str:
            answered = await self.call("GET", "/expenses")
            return answered.status_code if answered.status_code != 403 else str(answered.json()["code"])

        await wait_until(answer, lambda state: state not in {503, "not_a_member", "base_inactive"}, describe="known")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def finance(runtime: Runtime, tmp_path_factory: Any) -> AsyncIterator[Finance]:
    folder: Path = tmp_path_factory.mktemp("finance")
    database = await service_database(runtime, service)
    async with AsyncExitStack() as stack:
        sources = await stack.enter_async_context(access_sources(runtime))
        url = database.url(runtime.administrator_url)
        public = base64.urlsafe_b64encode(ROOT_KEY.public_key().public_bytes_raw()).rstrip(b"=").decode()
        settings = FinanceSettings.model_validate(
            {
                "database_url": url,
                "kafka_bootstrap_servers": sources.kafka.bootstrap_servers,
                "kafka_username": sources.kafka.username,
                "kafka_password": sources.kafka.password,
                "topic_prefix": sources.kafka.topic_prefix,
                "token_issuer": "test",
                "token_audience": "kisum",
                "root_public_key": public,
                "access_folder": folder / "access",
            }
        )
        app = build_app(service, settings)
        await sources.publish(signing_key("key-1", KEY))
        await sources.publish(catalog())
        await sources.beat()
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))

        async def readiness() -> int:
            return (await client.get("/api/finance/readyz")).status_code

        await wait_until(readiness, lambda status: status == 200, describe="finance is ready")
        yield Finance(client, sources, url)
