"""How long a revocation takes to bite: in one module, and in the slowest of thirteen instances.

Time zero is the commit PostgreSQL recorded. In one module the end is the first refusal that a caller saw who asks every
millisecond. In thirteen it is when the last instance had the state that denies in its cache, as each acknowledges it
(`applied_at`), for thirteen callers who ask every millisecond would be the load that is measured. Between every two
revocations a record of the size of a membership's goes through the same broker to one bare reader, or to thirteen.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Self
from uuid import uuid4

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does not mark its exports

from access.acknowledgements import TOPIC as ACKNOWLEDGEMENTS
from benchmarks.bare_reader import RECORD_BYTES
from benchmarks.bed import Bed
from benchmarks.figures import Figure, percentile
from benchmarks.fleet import INSTANCES, Fleet
from benchmarks.programs import program, told
from cli import progress
from cli.demo.steps import PASSED, PERMISSION, grant_to_allow, purchase_to_access, refused_with_reason, sign_up
from cli.demo.story import Story
from cli.demo.system import Processes
from contracts.envelope import decode
from contracts.events.access import RecordsApplied
from contracts.events.auth import GrantChanged
from contracts.topics import TOPICS, wire_name
from infra.embedded.kafka import EmbeddedKafka
from infra.kafka.connection import KafkaConnection
from infra.kafka.producer import new_producer
from middleware.chain import COMPANY_HEADER

_REVOCATIONS: Final = 200
_WARMING: Final = 20
_ADMIN_TIMEOUT_SECONDS: Final = 30.0
_REACTION_TIMEOUT_SECONDS: Final = 15.0
#: A busy machine is no failure.
_REQUEST_TIMEOUT_SECONDS: Final = 60.0
_ASKED_BEFORE: Final = 5
_LOOK_SECONDS: Final = 0.001
#: Between two that thirteen must have applied: longer than any of them takes.
_PAUSE_SECONDS: Final = 0.1
_ACKNOWLEDGED_SECONDS: Final = 30.0
_MEMBERSHIPS: Final = next(topic.name for topic in TOPICS if GrantChanged in topic.payloads)


async def measure(bed: Bed) -> list[Figure]:
    """First on the installation as it is, then with all thirteen."""
    system = await bed.system()
    async with revoking(system) as story:
        figures = await _in_one(story, system)
        figures += await _in_thirteen(story, await bed.fleet())
    return figures


@asynccontextmanager
async def revoking(system: Processes) -> AsyncIterator[Story]:
    """A company with a colleague whose one permission can be given and taken away."""
    async with httpx.AsyncClient(trust_env=False, timeout=_REQUEST_TIMEOUT_SECONDS) as http:
        story = Story(system, http, bound_seconds=0)
        for step in (sign_up, purchase_to_access, refused_with_reason, grant_to_allow):
            await step(story)
        yield story


async def revoke_once(story: Story) -> tuple[float, float]:
    """Give the permission, see that it is there, take it away: milliseconds from the commit to the first refusal, and
    between two requests of the one who asks.
    """
    await story.grant({PERMISSION: None})
    await story.expenses_until(story.colleague, httpx.codes.OK)
    async with story.polling(story.colleague) as poller:
        while len(poller.answers) < _ASKED_BEFORE:  # noqa: ASYNC110  the poller tells of its first refusal only
            await asyncio.sleep(_LOOK_SECONDS)
        await story.grant({})
        refused = await poller.first(httpx.codes.FORBIDDEN, before=PASSED, timeout_seconds=_REACTION_TIMEOUT_SECONDS)
    committed_at = await story.granted_at()
    return refused.ended / 1e6 - committed_at.timestamp() * 1000, poller.interval_ms


async def _in_one(story: Story, system: Processes) -> list[Figure]:
    revoked, sent, intervals = [], [], []
    async with _bare(system, readers=1) as bare:
        for number in range(_WARMING + _REVOCATIONS):
            ms, interval_ms = await revoke_once(story)
            bare_ms = await bare.ms()
            if number >= _WARMING:
                revoked.append(ms)
                intervals.append(interval_ms)
                sent.append(bare_ms)
    return [
        Figure("revoke_to_deny_p50_ms", percentile(revoked, 50), "ms"),
        Figure("revoke_to_deny_p99_ms", percentile(revoked, 99), "ms"),
        Figure("bare_produce_consume_p50_ms", percentile(sent, 50), "ms"),
        Figure("bare_produce_consume_p99_ms", percentile(sent, 99), "ms"),
        Figure("revoke_polling_interval_ms", percentile(intervals, 50), "ms"),
    ]


async def _in_thirteen(story: Story, fleet: Fleet) -> list[Figure]:
    committed: dict[int, datetime] = {}
    sent = []
    async with _Acknowledged(fleet.system) as acknowledged, _bare(fleet.system, readers=INSTANCES) as bare:
        for number in range(_WARMING + _REVOCATIONS):
            await story.grant({PERMISSION: None})
            await story.expenses_until(story.colleague, httpx.codes.OK)
            await asyncio.sleep(_PAUSE_SECONDS)
            await story.grant({})
            version, committed_at = await _committed(story)
            await asyncio.sleep(_PAUSE_SECONDS)
            bare_ms = await bare.ms()
            if number >= _WARMING:
                committed[version] = committed_at
                sent.append(bare_ms)
        slowest = await acknowledged.slowest_ms(committed)
        await _assert_refused(story, fleet)
    p50, bare_p50 = percentile(slowest, 50), percentile(sent, 50)
    return [
        Figure("revoke_slowest_of_13_p50_ms", p50, "ms"),
        Figure("revoke_slowest_of_13_p99_ms", percentile(slowest, 99), "ms"),
        Figure("bare_slowest_of_13_p50_ms", bare_p50, "ms"),
        Figure("bare_slowest_of_13_p99_ms", percentile(sent, 99), "ms"),
        Figure("revoke_vs_bare_ratio", p50 / bare_p50, "x"),
    ]


async def _committed(story: Story) -> tuple[int, datetime]:
    """Version and commit of the newest state of the colleague's membership."""
    async with story.system.database("auth") as connection:
        row = await connection.fetchrow(
            "select version, pg_xact_commit_timestamp(xmin) as at from memberships"
            " where company_id = $1 and user_id = $2",
            story.company_id,
            story.colleague.id,
        )
    return row["version"], row["at"]


def headers_of(story: Story) -> dict[str, str]:
    """As the colleague asks."""
    return {"Authorization": f"Bearer {story.colleague.token}", COMPANY_HEADER: str(story.company_id)}


async def _assert_refused(story: Story, fleet: Fleet) -> None:
    """Every instance of the module refuses what was taken away last."""
    async with httpx.AsyncClient(trust_env=False, timeout=_REQUEST_TIMEOUT_SECONDS) as http:
        for address in fleet.addresses:
            answer = await http.get(f"{address}/expenses?limit=1", headers=headers_of(story))
            if answer.status_code != httpx.codes.FORBIDDEN:
                raise AssertionError(f"{address}: {answer.status_code} {answer.text}")


def admin_of(system: Processes) -> KafkaConnection:
    """Who may do everything on the installation's Kafka."""
    return EmbeddedKafka(system.state).administrator


class _Acknowledged:
    """What the instances tell that they have applied, from now on."""

    def __init__(self, system: Processes) -> None:
        kafka = admin_of(system)
        self._consumer = AIOKafkaConsumer(**kafka.aiokafka(), group_id=None, enable_auto_commit=False)
        self._partition = TopicPartition(wire_name(kafka.topic_prefix, ACKNOWLEDGEMENTS.name), 0)
        #: By version of the one membership that changes, when each instance had it.
        self._applied: dict[int, dict[str, datetime]] = {}

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign([self._partition])
        await self._consumer.seek_to_end(self._partition)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def slowest_ms(self, committed: dict[int, datetime]) -> list[float]:
        """By the commits of versions, how long the slowest of all instances took."""
        async with asyncio.timeout(_ACKNOWLEDGED_SECONDS):
            while any(len(self._applied.get(version, ())) < INSTANCES for version in committed):
                self._note((await self._consumer.getone()).value)
        return [
            (max(self._applied[version].values()) - committed_at).total_seconds() * 1000
            for version, committed_at in committed.items()
        ]

    def _note(self, value: bytes) -> None:
        told = decode(value, (RecordsApplied,)).data
        for record in told.records:
            if record.topic == _MEMBERSHIPS:
                self._applied.setdefault(record.version, {})[told.instance] = record.applied_at


@dataclass
class _Bare:
    """A producer, and readers that do nothing else, each a process of its own."""

    producer: AIOKafkaProducer
    topic: str
    readers: Sequence[asyncio.subprocess.Process]

    async def ms(self) -> float:
        """From the call that sends a record to its arrival at the slowest reader."""
        sent = time.time_ns()
        await self.producer.send_and_wait(self.topic, bytes(RECORD_BYTES))
        arrived: list[int] = await asyncio.gather(*(told(reader) for reader in self.readers))
        return (max(arrived) - sent) / 1e6


@asynccontextmanager
async def _bare(system: Processes, *, readers: int) -> AsyncIterator[_Bare]:
    kafka = admin_of(system)
    admin, topic = AdminClient(kafka.confluent()), f"benchmark-{uuid4().hex}"
    for made in admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)]).values():
        await asyncio.to_thread(made.result, _ADMIN_TIMEOUT_SECONDS)
    producer = new_producer(kafka, client_id="bare")
    try:
        async with AsyncExitStack() as stack:
            await producer.start()
            stack.push_async_callback(producer.stop)
            with progress.step(f"{readers} bare readers"):
                gives = {"kafka": asdict(kafka), "topic": topic}
                started = [
                    await stack.enter_async_context(program("benchmarks.bare_reader", gives=gives))
                    for _ in range(readers)
                ]
                await asyncio.gather(*(told(reader) for reader in started))
            yield _Bare(producer, topic, started)
    finally:
        for gone in admin.delete_topics([topic]).values():
            await asyncio.to_thread(gone.result, _ADMIN_TIMEOUT_SECONDS)
