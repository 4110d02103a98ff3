"""How long a revocation takes to bite in one module, beside a bare record through the same broker.

Time zero is the commit PostgreSQL recorded; the end is the first refusal that a caller asking every millisecond saw.
Between every two revocations a record of the size of a membership's goes to a reader that does nothing else.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does not mark its exports

from benchmarks.figures import Figure, percentile
from cli.demo.steps import PERMISSION, grant_to_allow, purchase_to_access, refused_with_reason, revoke, sign_up
from cli.demo.story import Story
from cli.demo.system import System, own_home, running_system
from infra.embedded.kafka import EmbeddedKafka
from infra.kafka.connection import KafkaConnection
from infra.kafka.producer import new_producer

_REVOCATIONS: Final = 200
_WARMING: Final = 20
#: The reference membership's (design §9).
_RECORD_BYTES: Final = 1200
_ADMIN_TIMEOUT_SECONDS: Final = 30.0
_FETCH_WAIT_MILLISECONDS: Final = 500


class _Bare:
    """A producer and a reader of one partition."""

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        self._topic = topic
        self._producer = new_producer(kafka, client_id="bare")
        self._consumer = AIOKafkaConsumer(
            **kafka.aiokafka(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_WAIT_MILLISECONDS,
        )

    async def start(self) -> None:
        await self._producer.start()
        await self._consumer.start()
        self._consumer.assign([TopicPartition(self._topic, 0)])

    async def stop(self) -> None:
        await self._producer.stop()
        await self._consumer.stop()

    async def ms(self) -> float:
        """From the call that sends a record to its arrival at the reader."""
        arrival = asyncio.create_task(self._consumer.getone())
        # The reader's request is to wait at the broker already, as the feed's does.
        await asyncio.sleep(0)
        begun = time.perf_counter()
        sending = asyncio.create_task(self._producer.send_and_wait(self._topic, bytes(_RECORD_BYTES)))
        await arrival
        ms = (time.perf_counter() - begun) * 1000
        await sending
        return ms


@asynccontextmanager
async def _bare(system: System) -> AsyncIterator[_Bare]:
    broker = EmbeddedKafka(system.state)
    kafka = KafkaConnection(
        bootstrap_servers=broker.bootstrap_servers, username=broker.admin_username, password=broker.admin_password
    )
    admin, topic = AdminClient(kafka.confluent()), f"benchmark-{uuid4().hex}"
    for made in admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)]).values():
        await asyncio.to_thread(made.result, _ADMIN_TIMEOUT_SECONDS)
    bare = _Bare(kafka, topic)
    try:
        await bare.start()
        yield bare
    finally:
        await bare.stop()
        for gone in admin.delete_topics([topic]).values():
            await asyncio.to_thread(gone.result, _ADMIN_TIMEOUT_SECONDS)


async def measure() -> list[Figure]:
    """Both, interleaved in one run on an installation of its own."""
    async with (
        running_system(own_home("bench"), {}) as system,
        httpx.AsyncClient(trust_env=False) as http,
        _bare(system) as bare,
    ):
        story = Story(system, http, bound_seconds=0)
        for step in (sign_up, purchase_to_access, refused_with_reason, grant_to_allow, revoke):
            await step(story)
        revoked, sent, intervals = [], [], []
        for number in range(_WARMING + _REVOCATIONS):
            await story.grant({PERMISSION: None})
            await story.expenses_until(story.colleague, httpx.codes.OK)
            ms, interval_ms = await revoke(story)
            bare_ms = await bare.ms()
            if number >= _WARMING:
                revoked.append(ms)
                intervals.append(interval_ms)
                sent.append(bare_ms)
    return [
        Figure("revoke_to_deny_p50_ms", percentile(revoked, 50), "ms", goal=10),
        Figure("revoke_to_deny_p99_ms", percentile(revoked, 99), "ms", goal=50),
        Figure("bare_produce_consume_p50_ms", percentile(sent, 50), "ms"),
        Figure("bare_produce_consume_p99_ms", percentile(sent, 99), "ms"),
        Figure("revoke_vs_bare_ratio", percentile(revoked, 50) / percentile(sent, 50), "x"),
        Figure("revoke_polling_interval_ms", percentile(intervals, 50), "ms"),
    ]
