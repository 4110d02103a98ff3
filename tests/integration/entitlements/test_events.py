"""Core as it runs, on a real Kafka: facts in, states out, and what cannot be applied is put aside."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from contracts.envelope import Envelope, decode, encode, envelop, headers
from contracts.events.checkout import Item, TrialStarted
from contracts.identifiers import CompanyId, new_id
from contracts.topics import TOPICS, dead_letters_of, wire_name
from infra.clock import utc_now
from infra.kafka.connection import KafkaConnection
from services.entitlements.app import service
from tests.harness.runtime import Runtime
from tests.harness.services import RunningService, running_service
from tests.harness.waiting import wait_until
from tests.unit.entitlements.purchases import START, activated, at, purchased, subscription, trial

#: Consumers go by the real time, at which what was bought must not be over.
TODAY = (utc_now() - START).days
_TOPIC_OF = {payload.event_type: topic for topic in TOPICS for payload in topic.payloads}


@pytest_asyncio.fixture(loop_scope="session")
async def core(runtime: Runtime, tmp_path: Path) -> AsyncIterator[RunningService]:
    settings = {"root_public_key": "A" * 43, "access_folder": tmp_path / "access"}
    async with running_service(runtime, service, settings) as running:
        yield running


def administrator(runtime: Runtime, core: RunningService) -> KafkaConnection:
    return runtime.administrator(core.kafka.topic_prefix)


async def tell(kafka: KafkaConnection, company_id: CompanyId, *facts: Any) -> None:
    producer = AIOKafkaProducer(**kafka.aiokafka(), acks="all")
    await producer.start()
    try:
        for number, fact in enumerate(facts, start=1):
            envelope = envelop(
                fact,
                occurred_at=START,
                company_id=company_id,
                actor_user_id=None,
                epoch=1,
                version=number,
                correlation_id=new_id(),
            )
            topic = _TOPIC_OF[fact.event_type]
            await producer.send_and_wait(
                wire_name(kafka.topic_prefix, topic.name),
                encode(envelope),
                key=topic.record_key(envelope),
                headers=headers(envelope, None),
            )
    finally:
        await producer.stop()


async def log_of(kafka: KafkaConnection, topic_name: str) -> list[tuple[bytes, bytes]]:
    """Every record of a topic, as key and value."""
    topic = next(topic for topic in TOPICS if topic.name == topic_name)
    consumer = AIOKafkaConsumer(**kafka.aiokafka(), group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found: list[tuple[bytes, bytes]] = []
        places = [TopicPartition(wire_name(kafka.topic_prefix, topic_name), each) for each in range(topic.partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [(record.key, record.value) for record in records]
        return found
    finally:
        await consumer.stop()


async def states(kafka: KafkaConnection, topic_name: str) -> dict[str, Envelope[Any]]:
    """The newest state of each key in the log."""
    payloads = next(topic.payloads for topic in TOPICS if topic.name == topic_name)
    return {key.decode(): decode(value, payloads) for key, value in await log_of(kafka, topic_name)}


async def test_facts_of_both_topics_become_the_state_in_the_log_and_the_catalog_is_there(
    runtime: Runtime, core: RunningService
) -> None:
    kafka, company_id = administrator(runtime, core), CompanyId(new_id())
    await tell(
        kafka,
        company_id,
        activated("one", "basic_promoter", day=TODAY + 2),
        purchased("one", "basic_promoter", day=TODAY + 2),
        trial("one", "basic_promoter", "finance", day=TODAY),
    )
    found = await wait_until(
        lambda: states(kafka, "entitlements.companies.v1"),
        lambda seen: str(company_id) in seen and seen[str(company_id)].data.status == "active",
        describe="the entitlement is in the log",
    )
    assert [(each.key, each.valid_until) for each in found[str(company_id)].data.modules] == [
        ("promoter", at(TODAY + 32))
    ]
    await wait_until(
        lambda: states(kafka, "entitlements.catalog.v1"), lambda seen: len(seen) == 32, describe="the catalog is there"
    )


async def test_a_purchase_of_something_unknown_is_put_aside_and_the_next_one_goes_on(
    runtime: Runtime, core: RunningService
) -> None:
    kafka, company_id = administrator(runtime, core), CompanyId(new_id())
    unknown = TrialStarted(
        subscription_id=subscription("one"),
        items=(Item(kind="package", key="basic_agency"),),
        effective_at=at(TODAY),
        trial_end=at(TODAY + 7),
    )
    await tell(kafka, company_id, unknown, trial("two", "basic_venue", day=TODAY))
    found = await wait_until(
        lambda: states(kafka, "entitlements.companies.v1"),
        lambda seen: str(company_id) in seen,
        describe="the next fact is applied",
    )
    assert [each.key for each in found[str(company_id)].data.modules] == ["venue"]
    parked = await wait_until(
        lambda: log_of(kafka, dead_letters_of("entitlements").name), bool, describe="the dead letter is there"
    )
    assert [b"basic_agency" in value for _, value in parked] == [True]
