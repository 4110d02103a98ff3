"""A log of a million reference memberships, on topics of its own, with both owners' heartbeats going on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.ingest import COMPANIES, MEMBERSHIPS, STATE_TOPICS
from benchmarks.reference import MODULE, MembershipRecords, company_ids
from cli import progress
from contracts.envelope import HEADER_TYPE
from contracts.events.auth import GrantChanged
from contracts.topics import BATCH_SIZE_MAX_BYTES, wire_name
from infra.kafka.clients import KafkaClients, Outgoing
from infra.kafka.connection import KafkaConnection
from infra.kafka.partitioner import partition_of
from infra.tasks import end_tasks
from tests.harness.access import Sources, access_sources, catalog, entitled, signing_key
from tests.harness.runtime import Runtime

MEMBERSHIPS_COUNT: Final = 1_000_000
KID: Final = "key-1"
_SLICE: Final = 30_000
_HEADERS: Final = ((HEADER_TYPE, GrantChanged.event_type.encode()),)
_HEARTBEAT_INTERVAL_SECONDS: Final = 1.0
_COMPANIES_AT_ONCE: Final = 500


@dataclass(frozen=True)
class RecordLog:
    """Where it is, and the key the tokens of its people are signed with."""

    kafka: KafkaConnection
    signing_key: Ed25519PrivateKey


@asynccontextmanager
async def record_log(runtime: Runtime) -> AsyncIterator[RecordLog]:
    """Write it, and keep it fresh until the block ends."""
    async with access_sources(runtime) as sources:
        private_key = Ed25519PrivateKey.generate()
        with progress.step(f"a log of {MEMBERSHIPS_COUNT:,} memberships"):
            await sources.publish(signing_key(KID, private_key))
            await sources.publish(catalog(MODULE))
            await _write_companies(sources)
            await _write_memberships(sources)
        async with beating(sources):
            yield RecordLog(sources.kafka, private_key)


@asynccontextmanager
async def beating(sources: Sources) -> AsyncIterator[None]:
    """Both owners' heartbeats go on in the block."""
    task = asyncio.create_task(_beat(sources))
    try:
        yield
    finally:
        await end_tasks(task)


async def _beat(sources: Sources) -> None:
    while True:
        await sources.beat()
        await asyncio.sleep(_HEARTBEAT_INTERVAL_SECONDS)


async def _write_companies(sources: Sources) -> None:
    companies, state = list(company_ids(MEMBERSHIPS_COUNT)), entitled(MODULE, base="venue")
    if STATE_TOPICS[COMPANIES].payloads != (type(state),):
        raise AssertionError("the topic carries entitlements")
    for start in range(0, len(companies), _COMPANIES_AT_ONCE):
        await asyncio.gather(
            *(sources.publish(state, company_id=each) for each in companies[start : start + _COMPANIES_AT_ONCE])
        )


async def _write_memberships(sources: Sources) -> None:
    """As the relay sends them: keyed by murmur2, batches of one partition one after the other."""
    records, partitions = MembershipRecords(MEMBERSHIPS_COUNT), STATE_TOPICS[MEMBERSHIPS].partitions
    producer = KafkaClients(sources.kafka).producer(
        client_id="benchmark", batch_size_max_bytes=BATCH_SIZE_MAX_BYTES // 2
    )
    await producer.start()
    topic = wire_name(sources.kafka.topic_prefix, MEMBERSHIPS)

    async def send(partition: int, outgoing: list[Outgoing]) -> None:
        while outgoing:
            first, count = await producer.send_batch(topic, partition, outgoing[:500])
            outgoing = outgoing[count:]
            # Its heartbeats speak of what went past it too.
            sources._ends[MEMBERSHIPS, partition] = first + count  # noqa: SLF001

    try:
        for start in range(0, MEMBERSHIPS_COUNT, _SLICE):
            by_partition: list[list[Outgoing]] = [[] for _ in range(partitions)]
            for number in range(start, min(start + _SLICE, MEMBERSHIPS_COUNT)):
                record = records.of(number)
                by_partition[partition_of(record.key, partitions)].append(Outgoing(record.key, record.value, _HEADERS))
            await asyncio.gather(*(send(number, outgoing) for number, outgoing in enumerate(by_partition)))
    finally:
        await producer.give_up()
