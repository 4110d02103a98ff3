"""Whether a revocation has reached everybody: real instances on a real Kafka, and the resolver that hears them."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.acknowledgements import Acknowledgements
from access.path import AccessPath
from chassis.application import build_app
from contracts.events.auth import MembershipStatus
from contracts.identifiers import PLATFORM_COMPANY_ID, UserId, new_id
from infra.clock import utc_now
from infra.kafka.clients import KafkaClients
from infra.tasks import end_tasks
from middleware.identity import Identity
from middleware.token import SigningKey, TokenIssuer
from services.access_resolver.app import service
from services.access_resolver.settings import AccessResolverSettings
from tests.harness.access import ROOT_KEY, Sources, access_sources, grant, signing_key
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.harness.waiting import wait_until

KEY = Ed25519PrivateKey.generate()


async def _signing_key() -> SigningKey:
    return SigningKey("key-1", KEY)


ISSUER = TokenIssuer(issuer="test", audience="kisum", lifetime=timedelta(minutes=10), signing_key=_signing_key)


@dataclass
class Resolver:
    client: httpx.AsyncClient
    sources: Sources
    admin: UserId = field(default_factory=lambda: UserId(new_id()))
    platform_admin: UserId = field(default_factory=lambda: UserId(new_id()))

    async def get(self, path: str, caller: UserId, **headers: str) -> httpx.Response:
        token = await ISSUER.issue(Identity(caller, new_id(), 1), datetime.now(UTC))
        given = {"Authorization": f"Bearer {token.token}", "Kisum-Company-Id": str(self.sources.company_id)}
        return await self.client.get(f"/api/access{path}", headers={**given, **headers})

    async def revoke(self) -> int:
        """Returns the version."""
        return await self.sources.publish(grant(self.sources.user_id, status=MembershipStatus.REMOVED))

    async def proof(self, version: int) -> httpx.Response:
        subject = f"{self.sources.company_id}/{self.sources.user_id}"
        at_least = f"auth.memberships.v1:{subject}:1:{version}"
        return await self.get(f"/proofs/{subject}", self.admin, **{"Kisum-At-Least": at_least})

    async def verdict(self, version: int) -> str:
        answer = await self.proof(version)
        return str(answer.json()["verdict"]) if answer.status_code == 200 else str(answer.json()["code"])

    async def until_proved(self, version: int, describe: str) -> Mapping[str, Any]:
        await wait_until(lambda: self.verdict(version), lambda verdict: verdict == "proved", describe=describe)
        body: dict[str, Any] = (await self.proof(version)).json()
        assert body["revision"].endswith(f":1:{version}")
        return body

    async def until_missing(self, version: int, service_name: str) -> None:
        def is_missing(verdict: str) -> bool:
            return verdict.startswith(f"not proved, missing {service_name} ")

        await wait_until(lambda: self.verdict(version), is_missing, describe=f"{service_name} is missing")

    async def fleet(self) -> dict[str, dict[str, Any]]:
        answer = await self.get("/fleet", self.platform_admin)
        assert answer.status_code == 200, answer.text
        return {each["service"]: each for each in answer.json()["instances"]}


@asynccontextmanager
async def beating(sources: Sources) -> AsyncIterator[None]:
    """Core and Auth as long as they live."""
    ended = asyncio.Event()

    async def beat() -> None:
        while not ended.is_set():
            await sources.beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await ended.wait()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        ended.set()
        await task


@pytest_asyncio.fixture(loop_scope="session")
async def resolver(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Resolver]:
    database = await service_database(runtime, service)
    async with AsyncExitStack() as stack:
        sources = await stack.enter_async_context(access_sources(runtime))
        settings = AccessResolverSettings.model_validate(
            {
                "database_url": database.url(runtime.administrator_url),
                "kafka_bootstrap_servers": sources.kafka.bootstrap_servers,
                "kafka_username": sources.kafka.username,
                "kafka_password": sources.kafka.password,
                "topic_prefix": sources.kafka.topic_prefix,
                "token_issuer": "test",
                "token_audience": "kisum",
                "root_public_key": base64.urlsafe_b64encode(ROOT_KEY.public_key().public_bytes_raw()).decode(),
                "access_folder": tmp_path / "access_resolver",
            }
        )
        app = build_app(service, settings)
        await sources.publish(signing_key("key-1", KEY))
        await stack.enter_async_context(beating(sources))
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))
        found = Resolver(client, sources)
        await sources.publish(grant(found.admin, superadmin=True))
        await sources.publish(grant(found.platform_admin), company_id=PLATFORM_COMPANY_ID)
        await sources.publish(grant(sources.user_id))
        yield found


@dataclass
class Module:
    """An instance of finance, which may crash, stop and come back on its folder."""

    sources: Sources
    folder: Path

    async def start(self) -> None:
        kafka = KafkaClients(self.sources.kafka)
        self.told = Acknowledgements(kafka=kafka, service="finance", folder=self.folder, clock=utc_now)
        self.path = AccessPath.open(
            self.folder,
            service="finance",
            modules=("finance",),
            kafka=kafka,
            root_key=ROOT_KEY.public_key(),
            on_applied=self.told.note,
        )
        self.feed = asyncio.create_task(self.path.run())
        self.telling = asyncio.create_task(self.told.run(self.path))

    async def crash(self) -> None:
        """Without a word."""
        await end_tasks(self.telling, self.feed)
        self.told._instance.close()
        await self.told._give_up()
        self.path.close()

    async def stop(self) -> None:
        await end_tasks(self.telling)
        await self.told.sign_off(self.path)
        await end_tasks(self.feed)
        self.path.close()


@pytest_asyncio.fixture(loop_scope="session")
async def module(resolver: Resolver, tmp_path: Path) -> AsyncIterator[Module]:
    made = Module(resolver.sources, tmp_path / "finance")
    await made.start()
    yield made
    if not made.feed.done():
        await made.crash()


async def test_a_revocation_is_proved_once_every_instance_has_applied_it_with_the_time_of_each(
    resolver: Resolver, module: Module
) -> None:
    async def known() -> set[str]:
        answer = await resolver.get("/fleet", resolver.platform_admin)
        return {each["service"] for each in answer.json()["instances"]} if answer.status_code == 200 else set()

    await wait_until(known, lambda names: names == {"access_resolver", "finance"}, describe="both are heard")
    revoked_at = datetime.now(UTC)
    body = await resolver.until_proved(await resolver.revoke(), "the revocation has reached both")
    times = {each["service"]: datetime.fromisoformat(each["applied_at"]) for each in body["applied"]}
    assert set(times) == {"access_resolver", "finance"}
    assert all(revoked_at <= at <= datetime.now(UTC) for at in times.values())
    assert body["missing"] == []


async def test_an_instance_that_is_behind_is_named_until_it_has_caught_up_or_signed_off(
    resolver: Resolver, module: Module
) -> None:
    await resolver.until_proved(await resolver.revoke(), "both have applied the first")
    instance = (await resolver.fleet())["finance"]["instance"]
    await module.crash()
    version = await resolver.revoke()
    await resolver.until_missing(version, "finance")
    assert (await resolver.fleet())["finance"]["counts"]
    # It is back as the instance it was, on the cache it had.
    await module.start()
    await resolver.until_proved(version, "it has caught up")
    assert (await resolver.fleet())["finance"]["instance"] == instance
    await module.stop()
    version = await resolver.revoke()
    body = await resolver.until_proved(version, "nobody waits for one that has signed off")
    assert [each["service"] for each in body["applied"]] == ["access_resolver"]
    finance = (await resolver.fleet())["finance"]
    assert (finance["status"], finance["counts"]) == ("stopped", False)


async def test_the_fleet_shows_who_decides_by_how_old_a_state(resolver: Resolver, module: Module) -> None:
    async def serving() -> set[str]:
        answer = await resolver.get("/fleet", resolver.platform_admin)
        instances = answer.json().get("instances", [])
        return {each["service"] for each in instances if each["status"] == "serving"}

    await wait_until(serving, lambda names: names == {"access_resolver", "finance"}, describe="both serve")
    for each in (await resolver.fleet()).values():
        assert each["is_complete"]
        assert each["counts"]
        assert UUID(each["instance"]).version == 7
        assert set(each["ages_seconds"]) == {"auth", "entitlements"}
        assert all(0 <= age < 30 for age in each["ages_seconds"].values())
    refused = await resolver.get("/fleet", resolver.admin)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")


async def test_only_an_administrator_of_the_company_has_a_proof_and_only_of_its_members(resolver: Resolver) -> None:
    company, user = resolver.sources.company_id, resolver.sources.user_id

    async def answer(path: str, caller: UserId) -> tuple[int, str]:
        found = await resolver.get(path, caller)
        return found.status_code, str(found.json().get("code"))

    await wait_until(
        lambda: answer(f"/proofs/{company}/{user}", resolver.admin), lambda found: found[0] == 200, describe="ready"
    )
    assert await answer(f"/proofs/{company}/{user}", user) == (403, "permission_missing")
    bodies = []
    for path in (
        f"/proofs/{company}/{new_id()}",
        f"/proofs/{new_id()}/{user}",
        f"/proofs/{PLATFORM_COMPANY_ID}/{user}",
    ):
        found = await resolver.get(path, resolver.admin)
        assert found.status_code == 404
        bodies.append({**found.json(), "request_id": None})
    assert bodies[0] == bodies[1] == bodies[2]


async def test_a_proof_of_a_state_that_has_not_come_is_503(resolver: Resolver) -> None:
    async def code() -> str:
        return await resolver.verdict(1)

    await wait_until(code, lambda verdict: verdict == "proved", describe="ready")
    async with asyncio.timeout(10):
        answer = await resolver.proof(10**12)
    assert (answer.status_code, answer.json()["code"]) == (503, "state_unknown")
    assert answer.headers["Retry-After"] == "2"
