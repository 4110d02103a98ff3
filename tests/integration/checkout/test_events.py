"""Checkout as it runs, on a real Kafka: the catalog comes in, facts go out in the order they were written."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from aiokafka import AIOKafkaProducer

from contracts.envelope import decode, encode, envelop, headers
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, new_id
from contracts.topics import TOPICS, wire_name
from infra.kafka.connection import KafkaConnection
from infra.postgres.database import Database
from services.checkout.app import service
from services.checkout.projections.rules import Catalog
from services.checkout.projections.tables import read_catalog
from tests.harness.runtime import Runtime
from tests.harness.services import RunningService, running_service
from tests.harness.waiting import wait_until
from tests.integration.checkout.buying import NOW, bought, kinds
from tests.integration.entitlements.test_events import administrator, log_of
from tests.unit.checkout.test_sessions import CATALOG

_CATALOG = next(topic for topic in TOPICS if topic.name == "entitlements.catalog.v1")
_SUBSCRIPTIONS = next(topic for topic in TOPICS if topic.name == "checkout.subscriptions.v1")


@pytest_asyncio.fixture(loop_scope="session")
async def checkout(runtime: Runtime, tmp_path: Path) -> AsyncIterator[RunningService]:
    settings = {
        "root_public_key": "A" * 43,
        "access_folder": tmp_path / "access",
        "webhook_secret": "a webhook secret of a test, long.",
        "public_url": "http://127.0.0.1:1",
    }
    async with running_service(runtime, service, settings) as running:
        yield running


async def publish_catalog(kafka: KafkaConnection) -> None:
    producer = AIOKafkaProducer(**kafka.aiokafka(), acks="all")
    await producer.start()
    try:
        for rows in (CATALOG.modules, CATALOG.packages, CATALOG.addons, CATALOG.prices):
            for row in rows.values():
                envelope = envelop(
                    row,
                    occurred_at=NOW,
                    company_id=PLATFORM_COMPANY_ID,
                    actor_user_id=None,
                    epoch=1,
                    version=1,
                    correlation_id=new_id(),
                )
                await producer.send_and_wait(
                    wire_name(kafka.topic_prefix, _CATALOG.name),
                    encode(envelope),
                    key=_CATALOG.record_key(envelope),
                    headers=headers(envelope, None),
                )
    finally:
        await producer.stop()


async def test_what_core_publishes_is_sold_and_what_was_sold_is_told(
    runtime: Runtime, checkout: RunningService
) -> None:
    kafka, company_id = administrator(runtime, checkout), CompanyId(new_id())
    database: Database = checkout.app.state.database

    async def catalog() -> Catalog:
        async with database.unit_of_work() as work:
            return await read_catalog(work)

    await publish_catalog(kafka)
    await wait_until(catalog, lambda found: found == CATALOG, describe="the catalog is copied")
    await bought(database, company_id, "basic_promoter", trial=True)
    await bought(database, company_id, "basic_promoter", "finance")
    log = await wait_until(
        lambda: log_of(kafka, _SUBSCRIPTIONS.name), lambda found: len(found) == 2, describe="the facts are in the log"
    )
    assert kinds([decode(value, _SUBSCRIPTIONS.payloads) for _, value in log]) == [
        "TrialStarted",
        "SubscriptionActivated",
    ]
