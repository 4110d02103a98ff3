"""A module's service as `kisum serve` runs it, its neighbours played: every state it decides by comes from the test."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from chassis.application import build_app
from chassis.service import Service
from chassis.settings import FileSettings
from contracts.identifiers import CompanyId, UserId, new_id
from contracts.permissions import PERMISSIONS
from contracts.services import BASE_MODULES
from contracts.topics import TOPICS
from infra.kafka.bootstrap import bootstrap
from middleware.identity import Identity
from middleware.token import SigningKey, TokenIssuer
from tests.harness.access import ROOT_KEY, Sources, access_sources, catalog, entitled, grant, signing_key
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.harness.waiting import wait_until

KEY = Ed25519PrivateKey.generate()
#: A key nobody has used yet, as a client makes one up for each new request.
FRESH = "a fresh key"


async def _signing_key() -> SigningKey:
    return SigningKey("key-1", KEY)


ISSUER = TokenIssuer(issuer="test", audience="kisum", lifetime=timedelta(minutes=10), signing_key=_signing_key)


@dataclass
class RunningModule:
    """`cheap_path` is a list that every member with a permission may ask for."""

    service: Service[Any]
    client: httpx.AsyncClient
    sources: Sources
    database_url: str
    cheap_path: str
    app: FastAPI

    async def person(
        self,
        company_id: CompanyId | None = None,
        *,
        scopes: Mapping[str, Any] | None = None,
        permissions: Iterable[str] | Mapping[str, datetime | None] | None = None,
    ) -> "Person":
        """A member of a company that has the module, once this service knows; unless told with all its permissions."""
        module = self.service.name
        company = company_id or CompanyId(new_id())
        held = all_permissions(module) if permissions is None else permissions
        person = Person(self, company, UserId(new_id()))
        await self.sources.publish(entitlement(module), company_id=company)
        granted = grant(person.user_id, module=module, permissions=held, scopes=scopes)
        await self.sources.publish(granted, company_id=company)
        await person.until_known()
        return person

    async def narrow(self, person: "Person", scopes: Mapping[str, Any]) -> None:
        """Bound what a member reaches; returns when this service knows."""
        module = self.service.name
        state = grant(person.user_id, module=module, permissions=all_permissions(module), scopes=scopes)
        version = await self.sources.publish(state, company_id=person.company_id)
        revision = f"auth.memberships.v1:{person.company_id}/{person.user_id}:{self.sources.epoch}:{version}"
        answer = await person.call("GET", self.cheap_path, headers={"Kisum-At-Least": revision})
        assert answer.status_code == 200, answer.text


@dataclass
class Person:
    module: RunningModule
    company_id: CompanyId
    user_id: UserId

    async def call(
        self,
        method: str,
        path: str,
        *,
        company_id: UUID | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = FRESH,
        **given: Any,
    ) -> httpx.Response:
        """A request as a careful client sends it: each POST with an Idempotency-Key, a new one unless told."""
        request = await self.request(method, path, company_id=company_id, headers=headers, key=key, **given)
        return await self.module.client.send(request)

    async def request(
        self,
        method: str,
        path: str,
        *,
        company_id: UUID | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = FRESH,
        **given: Any,
    ) -> httpx.Request:
        """The same, not yet sent."""
        token = await ISSUER.issue(Identity(self.user_id, new_id(), 1), datetime.now(UTC))
        own = {"Authorization": f"Bearer {token.token}", "Kisum-Company-Id": str(company_id or self.company_id)}
        if method == "POST" and key is not None:
            own["Idempotency-Key"] = str(new_id()) if key == FRESH else key
        group = self.module.service.manifest.route_group
        sent = {**own, **(headers or {})}
        return self.module.client.build_request(method, f"{group}{path}", headers=sent, **given)

    async def until_known(self) -> None:
        async def answer() -> int | str:
            answered = await self.call("GET", self.module.cheap_path)
            return answered.status_code if answered.status_code != 403 else str(answered.json()["code"])

        unknown = {503, "not_a_member", "base_inactive"}
        await wait_until(answer, lambda state: state not in unknown, describe="known")


def all_permissions(module: str) -> tuple[str, ...]:
    """The living keys of a module."""
    return tuple(key for key, row in PERMISSIONS[module].items() if row.alias_of is None)


def entitlement(module: str) -> Any:
    """A company that has the module: as its base, or on top of one."""
    return entitled(base=module) if module in BASE_MODULES else entitled(module)


def file_settings(service: Service[Any], folder: Path) -> Mapping[str, Any]:
    """Where a service keeps files, if it keeps any."""
    return {"files_url": (folder / "files").as_uri()} if issubclass(service.settings, FileSettings) else {}


@asynccontextmanager
async def running_module(
    runtime: Runtime, service: Service[Any], folder: Path, *, cheap_path: str
) -> AsyncIterator[RunningModule]:
    """The service with its feed, its relay and its jobs, on a real Kafka and a real PostgreSQL."""
    database = await service_database(runtime, service)
    async with AsyncExitStack() as stack:
        sources = await stack.enter_async_context(access_sources(runtime))
        own = [topic for topic in TOPICS if service.name in {topic.owner, *topic.projected_by}]
        await asyncio.to_thread(bootstrap, sources.kafka, own, {})
        url = database.url(runtime.administrator_url)
        public = base64.urlsafe_b64encode(ROOT_KEY.public_key().public_bytes_raw()).rstrip(b"=").decode()
        settings = service.settings.model_validate(
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
                **file_settings(service, folder),
            }
        )
        app = build_app(service, settings)
        await sources.publish(signing_key("key-1", KEY))
        await sources.publish(catalog(service.name))
        await sources.beat()
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))

        async def readiness() -> int:
            return (await client.get(f"{service.manifest.route_group}/readyz")).status_code

        await wait_until(readiness, lambda status: status == 200, describe="the module is ready")
        yield RunningModule(service, client, sources, url, cheap_path, app)
