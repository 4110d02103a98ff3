"""Auth's and Core's own tables through a restore: all they know is published anew, what they do not gives nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from access.cache import Upsert
from access.ingest import STATE_TOPICS, Ingest
from access.records import Entitlement, Membership, PermissionTable, sessions_of, signing_key_of
from contracts.envelope import Envelope, decode, encode
from contracts.events.auth import (
    MembershipStatus,
    PermissionsChanged,
    PermissionState,
    PermissionStatus,
    SessionsChanged,
)
from contracts.events.entitlements import AddonChanged, CatalogStatus, ModuleChanged, PackageChanged, PriceChanged
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from contracts.payload import Payload
from contracts.topics import TOPICS, Topic
from infra.kafka.bootstrap import bootstrap
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from infra.outbox.heartbeat import is_heartbeat
from infra.outbox.relay import Relay
from infra.outbox.source import StateSource
from infra.outbox.store import OutboxStore
from infra.outbox.tables import states as pending_states
from infra.outbox.writer import Lane, envelop_for
from infra.postgres.database import Database
from services.auth.app import service as auth
from services.auth.jobs import publish_what_is_due
from services.auth.memberships import operations as memberships
from services.auth.memberships.tables import DelegationRow, GrantedModule, GrantedPermission
from services.auth.sessions import operations as sessions
from services.auth.sessions.tables import Session, TokenGeneration
from services.auth.signing_keys.operations import KeyRing
from services.entitlements.app import service as core
from services.entitlements.catalog.tables import Package
from services.entitlements.companies import operations as companies
from services.entitlements.companies.operations import record_fact
from services.entitlements.jobs import publish_catalog
from tests.harness.access import ROOT_KEY, entitled, grant, signing_key
from tests.harness.runtime import Runtime
from tests.harness.services import ENCRYPTION_KEY, service_database
from tests.harness.waiting import wait_until
from tests.integration.auth.published import new_company, new_person
from tests.integration.outbox.parts import running
from tests.unit.entitlements.purchases import activated

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)
LATER = int((NOW + timedelta(hours=1)).timestamp() * 1_000_000)
INGEST = Ingest(modules=("finance",), root_key=ROOT_KEY.public_key())
PASSWORD = "principal of a test"


@dataclass
class Restored:
    """A service's database and topics, and a relay of them."""

    service: str
    database: Database
    url: str
    admin: KafkaConnection
    sources: Mapping[str, StateSource]
    topics: tuple[Topic, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.topics = tuple(topic for topic in TOPICS if topic.owner == self.service and not topic.dead_letters)

    @property
    def states(self) -> dict[str, Topic]:
        return {topic.name: topic for topic in self.topics if topic.cleanup == "compact"}

    @property
    def heartbeats(self) -> Topic:
        return next(topic for topic in self.topics if is_heartbeat(topic))

    def relay(self) -> Relay:
        return Relay(
            open_store=OutboxStore.opener(self.url),
            database=self.database,
            kafka=KafkaClients(replace(self.admin, username=self.service, password=PASSWORD)),
            topics=self.topics,
            sources=self.sources,
            clock=lambda: NOW,
        )

    async def scalar(self, statement: str) -> Any:
        async with self.database.unit_of_work() as work:
            return await work.scalar(text(statement))

    async def drained(self) -> None:
        await wait_until(
            lambda: self.scalar("select count(*) from outbox_states"), lambda n: n == 0, describe="all is published"
        )

    async def forge(self, payload: Payload, *, company_id: UUID = PLATFORM_COMPANY_ID, version: int = 5) -> str:
        """A state the database has not heard of, as of a later time that was lost; its key."""
        topic = next(topic for topic in self.topics if type(payload) in topic.payloads)
        event = envelop_for(topic, payload, epoch=1, company_id=CompanyId(company_id), version=version, occurred_at=NOW)
        producer = AIOKafkaProducer(**self.admin.aiokafka())
        await producer.start()
        try:
            key = topic.record_key(event)
            await producer.send_and_wait(self.admin.topic_prefix + topic.name, encode(event), key=key)
        finally:
            await producer.stop()
        return key.decode()

    async def log(self) -> dict[tuple[str, str], Any]:
        """What compaction would leave: by topic and key the last record."""
        consumer = AIOKafkaConsumer(**self.admin.aiokafka(), group_id=None, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = {
                TopicPartition(self.admin.topic_prefix + name, number): name
                for name, topic in self.states.items()
                for number in range(topic.partitions)
            }
            consumer.assign(list(partitions))
            ends = await consumer.end_offsets(list(partitions))
            await consumer.seek_to_beginning(*partitions)
            found: dict[tuple[str, str], Any] = {}
            while any([await consumer.position(one) < ends[one] for one in partitions]):
                for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                    found |= {(partitions[partition], record.key.decode()): record for record in records}
            return found
        finally:
            await consumer.stop()

    async def states_of(self, log: Mapping[tuple[str, str], Any]) -> dict[tuple[str, str], Envelope[Any]]:
        return {(name, key): decode(each.value, self.states[name].payloads) for (name, key), each in log.items()}

    async def restore(self) -> dict[tuple[str, str], Any]:
        """Find itself on another server, be told that it is the truth, and publish; the log then."""
        async with self.database.unit_of_work() as work:
            await work.execute(text("update outbox_publisher set system_id = 'another'"))
        async with running(self.relay()) as relay:
            await wait_until(lambda: asyncio.sleep(0, relay.refusal), bool, describe="it refuses")
            async with self.database.unit_of_work() as work:
                await work.execute(text("insert into outbox_restores default values"))
            await wait_until(
                lambda: self.scalar("select count(*) from outbox_restores where finished_at is null"),
                lambda n: n == 0,
                describe="the restore is finished",
            )
        return await self.log()


@asynccontextmanager
async def restored(runtime: Runtime, service: Any, components: Any) -> AsyncIterator[Restored]:
    described = await service_database(runtime, service)
    url = described.url(runtime.administrator_url)
    database = Database(url, application_name="test")
    admin = replace(runtime.kafka_admin, topic_prefix=runtime.new_prefix())
    owned = [topic for topic in TOPICS if topic.owner == service.name]
    await asyncio.to_thread(bootstrap, admin, owned, {service.name: PASSWORD})
    try:
        yield Restored(service.name, database, url, admin, service.sources(components(database)))
    finally:
        await database.close()


def changes(log: Mapping[tuple[str, str], Any]) -> dict[tuple[str, str], Upsert]:
    """What readers make of it; all of it must be readable."""
    found = {}
    for (topic, key), record in log.items():
        if topic in STATE_TOPICS:
            change = INGEST.change_of(topic, record.partition, record.key, record.value)
            assert isinstance(change, Upsert), (topic, key, change)
            found[topic, key] = change
    return found


def key_ring(database: Database) -> dict[type, Any]:
    return {KeyRing: KeyRing(database, root=ROOT_KEY, cipher=Fernet(ENCRYPTION_KEY), clock=lambda: NOW)}


async def test_auth_publishes_all_it_knows_and_withdraws_the_rest(runtime: Runtime) -> None:
    async with restored(runtime, auth, key_ring) as owner:
        async with owner.database.unit_of_work() as work:
            company, founder = await new_company(work)
            stranger, signed_out = await new_person(work), await new_person(work)
            work.add(
                Session(
                    id=new_id(),
                    user_id=signed_out,
                    refresh_hash=bytes(32),
                    created_at=NOW,
                    refreshed_at=NOW,
                    expires_at=NOW + timedelta(days=30),
                )
            )
        await key_ring(owner.database)[KeyRing].prepare()
        await publish_what_is_due(owner.database, lambda: NOW)
        async with running(owner.relay()):
            await owner.drained()
        before = await owner.states_of(await owner.log())
        nobody = UserId(new_id())
        as_member = await owner.forge(grant(stranger), company_id=company)
        as_nobody = await owner.forge(grant(nobody), company_id=company)
        module = await owner.forge(
            PermissionsChanged(
                module="booking",
                permissions=(PermissionState(key="booking.show.read", status=PermissionStatus.ACTIVE, alias_of=None),),
            )
        )
        kid = await owner.forge(signing_key("lost", Ed25519PrivateKey.generate()))
        of_person = await owner.forge(SessionsChanged(user_id=signed_out, min_gen=7, revoked=()))
        of_nobody = await owner.forge(SessionsChanged(user_id=nobody, min_gen=1, revoked=()))
        log = await owner.restore()
        found, said = changes(log), await owner.states_of(log)
        assert {said[subject].epoch for subject in said} == {2}
        assert {subject: (said[subject].version, said[subject].data) for subject in before} == {
            subject: (event.version, event.data) for subject, event in before.items()
        }
        assert {name for name, _ in before} == {name for name in owner.states if name != "auth.sessions.v1"}
        for key in (as_member, as_nobody):
            member = Membership(found["auth.memberships.v1", key].record)
            assert (member.status, list(member.modules())) == (MembershipStatus.REMOVED, [])
        assert PermissionTable(found["auth.permissions.v1", module].record).required(0) == 0
        assert not signing_key_of(found["auth.signing-keys.v1", kid].record).verifies(LATER)
        assert sessions_of(found["auth.sessions.v1", of_person].record).is_live(new_id(), 1)
        assert not sessions_of(found["auth.sessions.v1", of_nobody].record).is_live(new_id(), 10**9)
        async with owner.database.unit_of_work() as work:
            added = await memberships.add_member(work, company, stranger, actor=founder, now=NOW)
        withdrawn = said["auth.memberships.v1", as_member]
        assert (added.revision.epoch, added.revision.version) > (withdrawn.epoch, withdrawn.version)


async def test_core_publishes_all_it_knows_and_withdraws_the_rest(runtime: Runtime) -> None:
    async with restored(runtime, core, lambda _: {}) as owner:
        company, later = CompanyId(new_id()), CompanyId(new_id())
        await publish_catalog({}, owner.database, lambda: NOW)
        await buy(owner, company)
        async with running(owner.relay()):
            await owner.drained()
        before = await owner.states_of(await owner.log())
        key = await owner.forge(entitled("finance"), company_id=later)
        status = CatalogStatus.ACTIVE
        rows = [
            await owner.forge(row)
            for row in (
                ModuleChanged(key="gone", type="base", label="Gone", compatible_bases=(), status=status),
                PackageChanged(
                    key="gone", label="Gone", base_module="venue", addon_modules=(), trial_days=30, status=status
                ),
                AddonChanged(key="gone", label="Gone", capability="gone", modules=("venue",), status=status),
                PriceChanged(
                    key="gone",
                    item_kind="addon",
                    item_key="gone",
                    amount_minor=5,
                    currency="EUR",
                    interval="year",
                    placeholder=False,
                    status=status,
                ),
            )
        ]
        log = await owner.restore()
        found, said = changes(log), await owner.states_of(log)
        assert {event.epoch for event in said.values()} == {2}
        assert {subject: (said[subject].version, said[subject].data) for subject in before} == {
            subject: (event.version, event.data) for subject, event in before.items()
        }
        entitlement = Entitlement(found["entitlements.companies.v1", key].record)
        assert (entitlement.modules(), entitlement.capabilities(), entitlement.base_is_live(LATER)) == ({}, (), False)
        assert not entitlement.is_unknown
        assert [said["entitlements.catalog.v1", row].data.status for row in rows] == [CatalogStatus.RETIRED] * 4
        # What is bought or seeded under a withdrawn key goes on from there.
        await buy(owner, later)
        async with owner.database.unit_of_work() as work:
            work.add(Package(key="gone", label="Back", trial_days=0))
        await publish_catalog({}, owner.database, lambda: NOW)
        async with running(owner.relay()):
            await owner.drained()
        now = await owner.states_of(await owner.log())
        for subject in (("entitlements.companies.v1", key), ("entitlements.catalog.v1", "package/gone")):
            assert (now[subject].epoch, now[subject].version) > (said[subject].epoch, said[subject].version)


async def buy(owner: Restored, company: CompanyId) -> None:
    topic = next(topic for topic in TOPICS if topic.name == "checkout.subscriptions.v1")
    fact = activated("one", "basic_venue", day=2)
    event = envelop_for(topic, fact, epoch=1, company_id=company, version=1, occurred_at=NOW)
    async with owner.database.unit_of_work() as work:
        await record_fact(work, event, now=fact.effective_at)


async def pending(work: AsyncSession) -> dict[str, Any]:
    """What waits to be sent, by key; of the envelope, what does not differ each time."""
    await work.flush()
    found = await work.execute(select(pending_states.c.key, pending_states.c.value, pending_states.c.lane))
    told = ((key, json.loads(value), lane) for key, value, lane in found)
    return {
        key: (lane, {name: event[name] for name in event if name not in {"event_id", "correlation_id"}})
        for key, event, lane in told
    }


async def queries_of_pages(owner: Restored, source: StateSource, keys: Sequence[str]) -> tuple[int, int]:
    """How many round trips a page of one key takes, and one of all; each must publish what every key by itself does."""
    asked = 0

    def count(*_: Any) -> None:
        nonlocal asked
        asked += 1

    found: list[int] = []
    async with owner.database.unit_of_work() as work:
        await work.execute(text("delete from outbox_states"))
        for key in keys:
            assert await source.republish(work, key, now=NOW, lane=Lane.BULK) is not None
        expected = await pending(work)
        assert set(expected) == set(keys)
        for page in (keys[:1], keys):
            await work.execute(text("delete from outbox_states"))
            asked, connection = 0, (await work.connection()).sync_connection
            event.listen(connection, "before_cursor_execute", count)
            await source.republish_all(work, page, now=NOW, lane=Lane.BULK)
            event.remove(connection, "before_cursor_execute", count)
            assert await pending(work) == {key: expected[key] for key in page}
            found.append(asked)
    return found[0], found[1]


async def test_a_page_of_members_or_sessions_takes_as_many_queries_as_one(runtime: Runtime) -> None:
    async with restored(runtime, auth, key_ring) as owner:
        async with owner.database.unit_of_work() as work:
            permissions = list(
                await work.scalars(text("select key from permissions where module = 'finance' order by key limit 3"))
            )
            (one_company, founder), (other_company, _) = await new_company(work), await new_company(work)
            people = [await new_person(work) for _ in range(5)]
            # All are in one company and two in the other too, with other rights there.
            members = [(one_company, person) for person in people] + [(other_company, person) for person in people[:2]]
            for number, (company, person) in enumerate(members):
                await memberships.add_member(work, company, person, actor=founder, now=NOW)
                given = {"company_id": company, "user_id": person, "module": "finance", "granted_at": NOW}
                scopes = {"business_unit": "*", "event": [str(new_id()) for _ in range(number)]}
                work.add(GrantedModule(**given, scopes=scopes))
                await work.flush()
                work.add_all(GrantedPermission(**given, key=key) for key in permissions[: number % 4])
                if number % 2:
                    work.add(
                        DelegationRow(**given, permissions="*", scopes=scopes, may_delegate=True, granted_by=founder)
                    )
            for number, person in enumerate(people):
                work.add(TokenGeneration(user_id=person, generation=1, since=NOW - timedelta(minutes=3), version=4))
                ended = [NOW - timedelta(minutes=minute) for minute in range(number)]
                work.add_all(
                    Session(
                        id=new_id(),
                        user_id=person,
                        refresh_hash=new_id().bytes * 2,
                        created_at=NOW - timedelta(days=1),
                        refreshed_at=NOW - timedelta(days=1),
                        expires_at=NOW + timedelta(days=30),
                        ended_at=at,
                    )
                    for at in (*ended, None)
                )
        keys = sorted(f"{company}/{person}" for company, person in members)
        one, all_ = await queries_of_pages(owner, memberships, keys)
        assert one == all_
        one, all_ = await queries_of_pages(owner, sessions, sorted(map(str, people)))
        assert one == all_


async def test_a_page_of_companies_takes_as_many_queries_as_one(runtime: Runtime) -> None:
    async with restored(runtime, core, lambda _: {}) as owner:
        bought = [CompanyId(new_id()) for _ in range(4)]
        await publish_catalog({}, owner.database, lambda: NOW)
        for company in bought:
            await buy(owner, company)
        one, all_ = await queries_of_pages(owner, companies, sorted(map(str, bought)))
        assert one == all_
