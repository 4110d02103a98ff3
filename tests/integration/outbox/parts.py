"""An owner of state and fact topics on the run's servers: its database, its topics, relays of the real code."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from alembic import command
from confluent_kafka.admin import AdminClient
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from chassis.migrations import alembic_config
from contracts.envelope import Envelope, decode, encode
from contracts.events.auth import AuthHeartbeatSent, GrantChanged, MembershipStatus, ModuleGrant
from contracts.events.checkout import Item, TrialStarted
from contracts.identifiers import CompanyId, UserId, new_id
from contracts.topics import TOPICS, Topic
from infra.kafka.bootstrap import bootstrap
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from infra.outbox.relay import Relay
from infra.outbox.source import one_by_one
from infra.outbox.store import OutboxStore
from infra.outbox.writer import Lane, Revision, envelop_for, next_version, publish_fact, publish_state
from infra.postgres.database import Database
from infra.postgres.provision import ServiceDatabase, provision
from tests.harness.runtime import Runtime
from tests.harness.waiting import wait_until
from tests.integration.outbox.versions import VERSION

BY_NAME = {topic.name: topic for topic in TOPICS}
MEMBERSHIPS = BY_NAME["auth.memberships.v1"]
HEARTBEATS = BY_NAME["auth.heartbeats.v1"]
SUBSCRIPTIONS = BY_NAME["checkout.subscriptions.v1"]
COMPANY = CompanyId(UUID("01900000-0000-7000-8000-000000000001"))
NOW = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
#: Rows by table.
Backup = Mapping[str, list[asyncpg.Record]]
_TABLES = ("members", "outbox_publisher", "outbox_partitions", "outbox_states")
_KEY = re.compile(f"{COMPANY}/01900000-0000-7000-8000-[0-9a-f]{{12}}")


def user(number: int) -> UserId:
    return UserId(UUID(f"01900000-0000-7000-8000-{number:012x}"))


def key_of(number: int) -> str:
    return f"{COMPANY}/{user(number)}"


def grant(number: int, status: MembershipStatus = MembershipStatus.ACTIVE, *, bytes_more: int = 0) -> GrantChanged:
    scopes: Any = {"site": tuple(f"{n:0100}" for n in range(bytes_more // 100))}
    module = ModuleGrant(key="finance", permissions={"finance.expense.read": None}, scopes=scopes)
    return GrantChanged(user_id=user(number), status=status, superadmin=False, modules=(module,), delegations=())


async def publish_grant(work: AsyncSession, number: int, version: int, **how: Any) -> Revision:
    lane = how.pop("lane", Lane.INTERACTIVE)
    return await publish_state(
        work, MEMBERSHIPS, grant(number, **how), company_id=COMPANY, version=version, occurred_at=NOW, lane=lane
    )


async def publish_trial(work: AsyncSession, company: CompanyId, version: int) -> UUID:
    fact = TrialStarted(
        subscription_id=new_id(), items=(Item(kind="package", key="basic_venue"),), effective_at=NOW, trial_end=NOW
    )
    return await publish_fact(work, SUBSCRIPTIONS, fact, company_id=company, version=version, occurred_at=NOW)


class Members:
    """The rows as a service would give them to its relay: locked, and published as they are."""

    def is_key(self, key: str) -> bool:
        return _KEY.fullmatch(key) is not None

    async def keys(self, work: AsyncSession, *, after: str | None, limit: int) -> list[str]:
        found = await work.scalars(
            text("select key from members where key > :after order by key limit :limit"),
            {"after": after or "", "limit": limit},
        )
        return list(found)

    async def republish(
        self, work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        assert now is not None
        locked = text("select version, status from members where key = :key for update")
        row = (await work.execute(locked, {"key": key})).first()
        if row is None:
            return None
        version = next_version(row.version, above)
        await work.execute(
            text("update members set version = :version where key = :key"), {"version": version, "key": key}
        )
        return await publish_grant(work, _number_of(key), version, status=MembershipStatus(row.status), lane=lane)

    async def republish_all(self, work: AsyncSession, keys: Sequence[str], *, now: datetime, lane: Lane) -> None:
        await one_by_one(self.republish)(work, keys, now=now, lane=lane)

    async def withdraw(
        self, work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        assert now is not None
        version = next_version(0, above)
        await work.execute(
            text("insert into members values (:key, :version, 'removed')"), {"key": key, "version": version}
        )
        return await publish_grant(work, _number_of(key), version, status=MembershipStatus.REMOVED, lane=lane)


def _number_of(key: str) -> int:
    return int(key.rpartition("-")[2], 16)


def record_of(number: int, version: int, status: str = "active", *, epoch: int = 1) -> bytes:
    """A record's value as an owner of this epoch would have written it."""
    event = envelop_for(
        MEMBERSHIPS,
        grant(number, MembershipStatus(status)),
        epoch=epoch,
        company_id=COMPANY,
        version=version,
        occurred_at=NOW,
    )
    return encode(event)


@dataclass
class Owner:
    """`kafka` is the owner's own principal; `admin` may do everything."""

    url: str
    owner_url: str
    kafka: KafkaConnection
    admin: KafkaConnection
    database: Database = field(repr=False)

    async def write(self, number: int, status: str = "active", **how: Any) -> Revision:
        """Change a member as an operation does: under its row's lock, one version further, published with it."""
        async with self.database.unit_of_work() as work:
            return await self.write_in(work, number, status, **how)

    async def write_in(self, work: AsyncSession, number: int, status: str = "active", **how: Any) -> Revision:
        changed = await work.execute(
            text(
                "insert into members values (:key, 1, :status) on conflict (key)"
                " do update set version = members.version + 1, status = excluded.status returning version"
            ),
            {"key": key_of(number), "status": status},
        )
        return await publish_grant(work, number, changed.scalar_one(), status=MembershipStatus(status), **how)

    async def rows(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def pending(self) -> int:
        (row,) = await self.rows(
            "select (select count(*) from outbox_states where refused_at is null)"
            " + (select count(*) from outbox_facts where refused_at is null) as n"
        )
        return int(row["n"])

    async def log_of(self, topic: str) -> list[Any]:
        """Every record of the topic, in the order of its partitions' offsets."""
        consumer = AIOKafkaConsumer(**self.admin.aiokafka(), group_id=None, auto_offset_reset="earliest")
        await consumer.start()
        try:
            name = self.admin.topic_prefix + topic
            partitions = [TopicPartition(name, number) for number in range(BY_NAME[topic].partitions)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning(*partitions)
            found: list[Any] = []
            while any([await consumer.position(one) < ends[one] for one in partitions]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    async def history(self, number: int) -> list[tuple[int, str]]:
        """The versions and states of one key, in the order of the log."""
        documents = [
            json.loads(record.value)
            for record in await self.log_of(MEMBERSHIPS.name)
            if record.key.decode() == key_of(number)
        ]
        return [(document["version"], document["data"]["status"]) for document in documents]

    async def send_raw(self, topic: Topic, record: Any) -> None:
        """Put a record into the log once more, as a relay that woke up would."""
        producer = AIOKafkaProducer(**self.admin.aiokafka())
        await producer.start()
        try:
            name = self.admin.topic_prefix + topic.name
            await producer.send_and_wait(name, record.value, key=record.key, partition=record.partition)
        finally:
            await producer.stop()

    async def forge(
        self, topic: Topic, key: bytes | None, value: bytes | None, *, partition: int | None = None
    ) -> tuple[int, int]:
        """A record from somebody else; its partition and offset."""
        producer = AIOKafkaProducer(**self.admin.aiokafka())
        await producer.start()
        try:
            name = self.admin.topic_prefix + topic.name
            sent = await producer.send_and_wait(name, value, key=key, partition=partition)
            return sent.partition, sent.offset
        finally:
            await producer.stop()

    async def make_again(self, topic: Topic) -> None:
        """Delete the topic and create it under the same name."""
        admin = AdminClient(self.admin.confluent())
        for answer in admin.delete_topics([self.admin.topic_prefix + topic.name]).values():
            await asyncio.to_thread(answer.result)
        await asyncio.to_thread(bootstrap, self.admin, [topic], {topic.owner: self.kafka.password})

    async def shorten(self, topic: Topic, *, partition: int, by: int) -> None:
        """Have the database believe that the log was longer: no broker can be told to forget its last records."""
        await self.rows(
            "update outbox_partitions set acknowledged_offset = acknowledged_offset + $3,"
            " checked_offset = checked_offset + $3 where topic = $1 and partition = $2",
            topic.name,
            partition,
            by,
        )

    async def save(self) -> "Backup":
        """What a base backup would hold; nothing may be pending."""
        return {table: await self.rows(f"select * from {table}") for table in _TABLES}  # noqa: S608 - constants

    async def put_back(self, backup: "Backup") -> None:
        """Be as the backup has it."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                for table in reversed(_TABLES):
                    await connection.execute(f"delete from {table}")  # noqa: S608 - constants
                for table in _TABLES:
                    for row in backup[table]:
                        places = ", ".join(f"${number + 1}" for number in range(len(row)))
                        await connection.execute(f"insert into {table} values ({places})", *row)  # noqa: S608
        finally:
            await connection.close()

    async def last_keys(self) -> set[bytes]:
        """The keys there is a state of in the log."""
        return {record.key for record in await self.log_of(MEMBERSHIPS.name) if record.value is not None}

    async def last_states(self) -> dict[str, tuple[int, str]]:
        """What compaction would leave: per key the version and status of its last record."""
        return {
            record.key.decode(): (document["version"], document["data"]["status"])
            for record in await self.log_of(MEMBERSHIPS.name)
            for document in [json.loads(record.value)]
        }

    def relay(self, **other: Any) -> Relay:
        given: dict[str, Any] = {
            "open_store": OutboxStore.opener(self.url),
            "database": self.database,
            "kafka": KafkaClients(self.kafka),
            "topics": (MEMBERSHIPS, HEARTBEATS),
            "sources": {MEMBERSHIPS.name: Members()},
        }
        return Relay(**{**given, **other})


async def drained(owner: Owner) -> None:
    await wait_until(owner.pending, lambda n: n == 0, describe="all is published")


async def beats(owner: Owner) -> list[Envelope[AuthHeartbeatSent]]:
    """The owner's heartbeats, oldest first."""
    return [decode(record.value, (AuthHeartbeatSent,)) for record in await owner.log_of(HEARTBEATS.name)]


async def heartbeats(owner: Owner) -> list[AuthHeartbeatSent]:
    return [beat.data for beat in await beats(owner)]


async def next_heartbeat(owner: Owner) -> AuthHeartbeatSent:
    """One that comes after now. What it says of offsets was so after now too, if it is the second to come."""
    count = len(await heartbeats(owner)) + 2
    found = await wait_until(lambda: heartbeats(owner), lambda all_: len(all_) >= count, describe="a heartbeat comes")
    return found[-1]


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[Relay]:
    task = asyncio.create_task(relay.run())
    try:
        yield relay
        if task.done():
            task.result()
    finally:
        await relay.close()


@asynccontextmanager
async def new_owner(runtime: Runtime, versions: Path, service: str = "auth") -> AsyncIterator[Owner]:
    prefix = runtime.new_prefix()
    described = ServiceDatabase(name=f"{prefix}{service}", password="application", owner_password="owner")
    await provision(runtime.administrator_url, {service: described})
    owner_url = described.owner_url(runtime.administrator_url)
    await migrate(owner_url, versions)
    admin = replace(runtime.kafka_admin, topic_prefix=prefix)
    topics = [topic for topic in TOPICS if service in (topic.owner, *topic.readers) or topic is SUBSCRIPTIONS]
    await asyncio.to_thread(bootstrap, admin, topics, {service: "principal of a test"})
    kafka = replace(admin, username=service, password="principal of a test")
    database = Database(described.url(runtime.administrator_url), application_name="test")
    try:
        yield Owner(
            url=described.url(runtime.administrator_url),
            owner_url=owner_url,
            kafka=kafka,
            admin=admin,
            database=database,
        )
    finally:
        await database.close()


async def migrate(owner_url: str, versions: Path) -> None:
    (versions / "0001_create.py").write_text(VERSION)

    def upgrade(connection: Connection) -> None:
        config = alembic_config(versions)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    engine = create_async_engine(owner_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        await connection.execute(text("create schema if not exists migration"))
        await connection.run_sync(upgrade)
    await engine.dispose()
