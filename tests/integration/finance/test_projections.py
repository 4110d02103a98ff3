"""Finance's copies of the promoter's events and artists, and what it asks of them."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update

import chassis.projections
from chassis.projections import Projection, _Reading
from cli.replay import replay
from contracts.envelope import encode, envelop
from contracts.errors import DomainError, Kind
from contracts.events.promoter import ArtistChanged, ArtistStatus, EventChanged, EventStatus, EventTimes
from contracts.identifiers import CompanyId, new_id
from contracts.payload import EPOCH_MAX, VERSION_MAX, Payload
from contracts.topics import dead_letters_of
from infra.embedded.errors import CannotStart
from infra.kafka.bootstrap import bootstrap
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from infra.kafka.work import WorkConsumers
from infra.outbox.survey import read_through
from infra.postgres.database import Database
from infra.tasks import end_tasks
from services.finance.app import service
from services.finance.projections.artists import ARTISTS, ProjectedArtist
from services.finance.projections.events import (
    EVENTS,
    EventStateUnknownError,
    EventUnknownError,
    ProjectedEvent,
    known_event,
)
from tests.harness.clock import FakeClock
from tests.harness.modules import RunningModule
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.harness.waiting import wait_until

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)
UNIT = new_id()
TIMES = EventTimes(
    starts_at=datetime(2026, 6, 18, 15, tzinfo=UTC),
    ends_at=datetime(2026, 6, 18, 22, tzinfo=UTC),
    time_zone="Europe/Oslo",
)
PASSWORD = "principal of a test"
DEAD_LETTERS = dead_letters_of("finance")


def event(event_id: UUID, status: str = "confirmed", title: str = "Aurora") -> EventChanged:
    there = status not in {"removed", "unknown"}
    return EventChanged(
        event_id=event_id,
        status=EventStatus(status),
        title=title if there else None,
        business_unit_id=UNIT if there else None,
        times=TIMES if there else None,
        space_id=None,
        venue_text="The old shipyard" if there else None,
        currency="NOK" if there else None,
    )


def envelope_of(data: Payload, company_id: CompanyId, version: int, epoch: int) -> Any:
    return envelop(
        data,
        occurred_at=NOW,
        company_id=company_id,
        actor_user_id=None,
        epoch=epoch,
        version=version,
        correlation_id=new_id(),
    )


@dataclass(frozen=True)
class Told:
    """A record, as far as a replay looks at it."""

    key: bytes
    value: bytes


@dataclass
class Copies:
    """Finance's database and its own principal, and the promoter played. Nothing is followed yet."""

    database: Database
    kafka: KafkaConnection
    admin: KafkaConnection
    producer: AIOKafkaProducer
    settings: dict[str, str]
    companies: list[CompanyId] = field(default_factory=list)

    def new_company(self) -> CompanyId:
        company_id = CompanyId(new_id())
        self.companies.append(company_id)
        return company_id

    async def tell(
        self, company_id: CompanyId, data: Payload, version: int = 1, *, epoch: int = 1, instead: Any = None
    ) -> None:
        """Publish a state, or with `instead` other bytes made of it."""
        (projection,) = (each for each in service.projections if type(data) in each.topic.payloads)
        envelope = envelope_of(data, company_id, version, epoch)
        value = encode(envelope)
        await self.send(projection, envelope.aggregate_id.encode(), instead(value) if instead else value)

    async def send(self, projection: Projection, key: bytes, value: bytes | None) -> None:
        await self.producer.send_and_wait(self.kafka.topic_prefix + projection.name, value, key=key)

    async def event(self, company_id: CompanyId, event_id: UUID) -> ProjectedEvent | None:
        async with self.database.unit_of_work(company_id=company_id) as work:
            return await work.get(ProjectedEvent, (company_id, event_id))

    async def until(self, company_id: CompanyId, event_id: UUID, version: int, epoch: int = 1) -> ProjectedEvent:
        """The copy, once this state is understood."""
        found = await wait_until(
            lambda: self.event(company_id, event_id),
            lambda row: row is not None and (row.epoch, row.version) == (epoch, version),
            describe=f"state {epoch}.{version} is copied",
        )
        assert found is not None
        return found

    async def until_all_is_read(self, company_id: CompanyId) -> None:
        """Tells of one more event in each partition, so that whatever was told before is consumed."""
        partitions = range(EVENTS.topic.partitions)
        for partition in partitions:
            while True:
                last = new_id()
                envelope = envelope_of(event(last), company_id, 1, 1)
                key = envelope.aggregate_id.encode()
                if await self._partition_of(key) == partition:
                    break
            await self.send(EVENTS, key, encode(envelope))
            await self.until(company_id, last, 1)

    async def _partition_of(self, key: bytes) -> int:
        name = self.kafka.topic_prefix + EVENTS.name
        await self.producer.partitions_for(name)
        return int(self.producer._partition(name, None, None, None, key, None))

    async def asked(self, company_id: CompanyId, event_id: UUID) -> ProjectedEvent:
        async with self.database.unit_of_work(company_id=company_id) as work:
            return await known_event(work, company_id, event_id)

    async def parked(self) -> list[dict[str, bytes]]:
        """The headers of the dead letters, with the original's value under `value`."""
        found: list[dict[str, bytes]] = []

        async def visit(_: Any, record: Any) -> None:
            found.append({**dict(record.headers), "value": record.value})

        await read_through(KafkaClients(self.admin), [DEAD_LETTERS], visit)
        return found

    async def rows(self) -> dict[tuple[UUID, UUID], tuple[Any, ...]]:
        """Every copied event of the companies told of, with all its columns."""
        found = {}
        for company_id in self.companies:
            async with self.database.unit_of_work(company_id=company_id) as work:
                for row in await work.execute(select(ProjectedEvent.__table__)):
                    found[row.company_id, row.id] = tuple(row)
        return found


@asynccontextmanager
async def copies_on(runtime: Runtime, folder: Path) -> AsyncIterator[Copies]:
    described = await service_database(runtime, service)
    admin = replace(runtime.kafka_admin, topic_prefix=f"{runtime.new_prefix()}.")
    kafka = replace(admin, username="finance", password=PASSWORD)
    topics = [*(projection.topic for projection in service.projections), DEAD_LETTERS]
    await asyncio.to_thread(bootstrap, admin, topics, {"finance": PASSWORD})
    url = described.url(runtime.administrator_url)
    database = Database(url, application_name="test")
    producer = AIOKafkaProducer(**admin.aiokafka(), linger_ms=0)
    await producer.start()
    settings = {
        "DATABASE_URL": url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_USERNAME": kafka.username,
        "KAFKA_PASSWORD": kafka.password,
        "TOPIC_PREFIX": kafka.topic_prefix,
        "TOKEN_ISSUER": "test",
        "TOKEN_AUDIENCE": "kisum",
        "ROOT_PUBLIC_KEY": "A" * 43,
        "ACCESS_FOLDER": str(folder / "access"),
    }
    try:
        yield Copies(database, kafka, admin, producer, settings)
    finally:
        await producer.stop()
        await database.close()


@asynccontextmanager
async def following(copies: Copies) -> AsyncIterator[None]:
    """As the service follows its topics."""
    consumers = [projection.consumer for projection in service.projections]
    work = WorkConsumers(copies.kafka, copies.database, "finance", consumers, FakeClock())
    await work.start()
    try:
        yield
    finally:
        await work.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def copies(runtime: Runtime, tmp_path_factory: Any) -> AsyncIterator[Copies]:
    """Followed all the time."""
    async with copies_on(runtime, tmp_path_factory.mktemp("copies")) as found, following(found):
        yield found


async def test_the_service_copies_what_the_promoter_tells(finance: RunningModule) -> None:
    company, event_id, artist_id = CompanyId(new_id()), new_id(), new_id()
    artist = ArtistChanged(
        artist_id=artist_id, status=ArtistStatus.ACTIVE, stage_name="The Night Ferries", genre=None, country="NO"
    )
    for projection, data in ((EVENTS, event(event_id)), (ARTISTS, artist)):
        envelope = envelope_of(data, company, 3, 1)
        await finance.sources.send_raw(projection.name, envelope.aggregate_id.encode(), encode(envelope))
    database = Database(finance.database_url, application_name="test")

    async def copied() -> tuple[ProjectedEvent | None, ProjectedArtist | None]:
        async with database.unit_of_work(company_id=company) as work:
            return await work.get(ProjectedEvent, (company, event_id)), await work.get(
                ProjectedArtist, (company, artist_id)
            )

    try:
        of_event, of_artist = await wait_until(copied, lambda found: None not in found, describe="both are copied")
    finally:
        await database.close()
    assert of_event is not None
    assert of_artist is not None
    assert (of_event.status, of_event.title, of_event.version) == ("confirmed", "Aurora", 3)
    assert (of_artist.status, of_artist.stage_name, of_artist.is_known) == ("active", "The Night Ferries", True)


async def test_what_comes_late_or_twice_changes_nothing(copies: Copies) -> None:
    company, event_id = copies.new_company(), new_id()
    for version in (2, 1, 3, 3, 1, 2):
        await copies.tell(company, event(event_id, title=f"as of {version}"), version)
    await copies.until_all_is_read(company)
    found = await copies.until(company, event_id, 3)
    assert (found.title, found.is_known) == ("as of 3", True)


async def test_a_restored_owner_is_believed_and_what_it_withdraws_is_gone(copies: Copies) -> None:
    """A later epoch is newer than any version of an earlier one, and states of the earlier one change nothing more."""
    company, kept, stranger = copies.new_company(), new_id(), new_id()
    for event_id in (kept, stranger):
        await copies.tell(company, event(event_id, title="before"), 9)
    await copies.tell(company, event(kept, title="after"), 4, epoch=2)
    await copies.tell(company, event(stranger, "removed"), 1, epoch=2)
    await copies.tell(company, event(kept, title="before"), 10)
    await copies.tell(company, event(stranger, title="before"), 10)
    await copies.until_all_is_read(company)
    assert (await copies.asked(company, kept)).title == "after"
    gone = await copies.until(company, stranger, 1, epoch=2)
    assert (gone.is_known, gone.is_removed, gone.title) == (True, True, None)


TOLD = st.tuples(st.integers(1, 3), st.integers(1, 4), st.booleans())


@given(told=st.lists(TOLD, min_size=1, max_size=8), data=st.data())
@settings(max_examples=60)
async def test_the_end_does_not_depend_on_the_order(copies: Copies, told: Sequence[Any], data: st.DataObject) -> None:
    """States and stand-ins of any revisions, each once or more: what is newest of either is what is left."""
    company, event_id = CompanyId(new_id()), new_id()
    order = data.draw(st.permutations([*told, *told[: len(told) // 2]]))
    async with copies.database.unit_of_work(company_id=company) as work:
        for epoch, version, is_known in order:
            state = event(event_id, "on_sale" if is_known else "unknown", f"{epoch}.{version}")
            await EVENTS.apply(work, envelope_of(state, company, version, epoch))
        row = await work.get_one(ProjectedEvent, (company, event_id))
        known = max(((epoch, version) for epoch, version, is_known in told if is_known), default=(0, 0))
        withheld = max(((epoch, version) for epoch, version, is_known in told if not is_known), default=(0, 0))
        assert (row.epoch, row.version) == known
        assert row.is_known == (known >= withheld)
        assert (row.status, row.title) == (("on_sale", f"{known[0]}.{known[1]}") if known > (0, 0) else (None, None))
        # Nothing of it stands in the log.
        await work.rollback()


# What Finance asks.


async def refusal(copies: Copies, company_id: CompanyId, event_id: UUID) -> DomainError:
    with pytest.raises(DomainError) as refused:
        await copies.asked(company_id, event_id)
    return refused.value


async def test_an_event_of_nobody_of_another_company_and_a_removed_one_are_refused_alike(copies: Copies) -> None:
    company, other, theirs, removed = copies.new_company(), copies.new_company(), new_id(), new_id()
    await copies.tell(other, event(theirs))
    await copies.tell(company, event(removed, "removed"), 2)
    await copies.until(other, theirs, 1)
    await copies.until(company, removed, 2)
    refusals = [await refusal(copies, company, each) for each in (new_id(), theirs, removed)]
    assert {type(each) for each in refusals} == {EventUnknownError}
    assert {(each.kind, each.code, each.pointer, each.detail) for each in refusals} == {
        (Kind.INVALID, "event_unknown", "/event_id", refusals[0].detail)
    }
    assert (await copies.asked(other, theirs)).title == "Aurora"


async def test_two_companies_never_see_each_others_even_under_one_id(copies: Copies) -> None:
    one, other, event_id = copies.new_company(), copies.new_company(), new_id()
    await copies.tell(one, event(event_id, title="one's"), 5)
    await copies.tell(other, event(event_id, title="other's"), 2)
    await copies.until(one, event_id, 5)
    await copies.until(other, event_id, 2)
    for company, title in ((one, "one's"), (other, "other's")):
        async with copies.database.unit_of_work(company_id=company) as work:
            assert list(await work.scalars(select(ProjectedEvent.title))) == [title]
            foreign = other if company is one else one
            with pytest.raises(EventUnknownError):
                await known_event(work, foreign, event_id)


# What nobody can say, and what cannot be read.


async def test_what_the_owner_cannot_say_is_not_believed_and_not_forgotten(copies: Copies) -> None:
    company, event_id, never_known = copies.new_company(), new_id(), new_id()
    await copies.tell(company, event(event_id))
    await copies.tell(company, event(event_id, "unknown"), 2)
    await copies.tell(company, event(never_known, "unknown"))
    await copies.until_all_is_read(company)
    for each in (event_id, never_known):
        refused = await refusal(copies, company, each)
        assert (type(refused), refused.kind) == (EventStateUnknownError, Kind.UNAVAILABLE)
    kept = await copies.until(company, event_id, 1)
    assert (kept.title, kept.status, kept.is_known) == ("Aurora", "confirmed", False)
    # The log took the state late: it is what the stand-in stood for.
    await copies.tell(company, event(event_id, title="late"), 2)
    await copies.until(company, event_id, 2)
    assert (await copies.asked(company, event_id)).title == "late"


def with_a_new_status(value: bytes) -> bytes:
    return value.replace(b'"status":"confirmed"', b'"status":"rescheduled"')


async def test_a_record_that_cannot_be_read_is_parked_and_its_event_is_not_believed_while_others_go_on(
    copies: Copies,
) -> None:
    company, event_id, other = copies.new_company(), new_id(), new_id()
    await copies.tell(company, event(event_id))
    await copies.tell(company, event(event_id), 2, instead=with_a_new_status)
    # Older than what cannot be read.
    await copies.tell(company, event(event_id))
    await copies.tell(company, event(other))
    await copies.until_all_is_read(company)
    assert (await copies.asked(company, other)).title == "Aurora"
    assert isinstance(await refusal(copies, company, event_id), EventStateUnknownError)
    (letter,) = [each for each in await copies.parked() if b"rescheduled" in each["value"]]
    assert (letter["dead-letter-code"], letter["dead-letter-consumer"]) == (b"undecodable", EVENTS.name.encode())
    assert letter["dead-letter-reason"].startswith(b"UnknownStatusError: promoter.event-changed.v1: /data/status")
    await copies.tell(company, event(event_id, title="readable"), 3)
    await copies.until(company, event_id, 3)
    assert (await copies.asked(company, event_id)).title == "readable"


async def test_an_event_under_the_key_of_another_is_taken_for_neither(copies: Copies) -> None:
    company, one, other = copies.new_company(), new_id(), new_id()
    for event_id in (one, other):
        await copies.tell(company, event(event_id))
    transplanted = envelope_of(event(other, title="transplanted"), company, 2, 1)
    await copies.send(EVENTS, f"{company}/{one}".encode(), encode(transplanted))
    await copies.until_all_is_read(company)
    assert (await copies.asked(company, other)).version == 1
    assert isinstance(await refusal(copies, company, one), EventStateUnknownError)
    # Its owner publishes what is true above what the record claims to be (decision 0013).
    await copies.tell(company, event(one), 3)
    await copies.until(company, one, 3)
    assert (await copies.asked(company, one)).title == "Aurora"


@pytest.mark.parametrize(
    "instead",
    [
        lambda _: b"{",
        lambda _: None,
        lambda value: value.replace(b'"epoch":1', b'"epoch":"?"'),
        # Nobody has counted up to these; they would hold the row for ever.
        lambda value: value.replace(b'"epoch":1', f'"epoch":{EPOCH_MAX + 1}'.encode()),
        lambda value: value.replace(b'"version":2', f'"version":{VERSION_MAX + 1}'.encode()),
        lambda value: value.replace(b'"version":2', f'"version":{VERSION_MAX + 1}'.encode()).replace(
            b'"confirmed"', b'"rescheduled"'
        ),
    ],
    ids=["not JSON", "a tombstone", "no epoch", "epoch beyond", "version beyond", "unreadable, version beyond"],
)
async def test_what_its_owner_did_not_write_is_parked_and_changes_nothing(copies: Copies, instead: Any) -> None:
    company, event_id = copies.new_company(), new_id()
    await copies.tell(company, event(event_id))
    await copies.until(company, event_id, 1)
    before, parked = await copies.rows(), len(await copies.parked())
    await copies.tell(company, event(event_id), 2, instead=instead)
    await wait_until(copies.parked, lambda found: len(found) == parked + 1, describe="it is parked")
    assert (await copies.rows())[company, event_id] == before[company, event_id]
    assert (await copies.asked(company, event_id)).version == 1


async def test_a_service_that_is_started_again_has_missed_nothing(runtime: Runtime, tmp_path: Path) -> None:
    async with copies_on(runtime, tmp_path) as own:
        company, before, meanwhile = own.new_company(), new_id(), new_id()
        # Told before anybody followed.
        await own.tell(company, event(before))
        async with following(own):
            await own.until(company, before, 1)
        await own.tell(company, event(before, "cancelled"), 2)
        await own.tell(company, event(meanwhile))
        async with following(own):
            assert (await own.until(company, before, 2)).status == "cancelled"
            await own.until(company, meanwhile, 1)


# Filling a copy again.


async def change(copies: Copies, company_id: CompanyId, statement: Any) -> None:
    async with copies.database.unit_of_work(company_id=company_id) as work:
        await work.execute(statement)


async def told(copies: Copies) -> tuple[CompanyId, list[UUID]]:
    """A company with events of every kind, and another with one; all are copied."""
    company, other = copies.new_company(), copies.new_company()
    events = [new_id() for _ in range(6)]
    for event_id in events:
        await copies.tell(company, event(event_id, title="first"))
        await copies.tell(company, event(event_id, title="second"), 2)
    await copies.tell(company, event(events[4], "removed"), 3)
    await copies.tell(company, event(events[5], "unknown"), 3)
    await copies.tell(other, event(events[0], title="other's"))
    await copies.until_all_is_read(company)
    await copies.until_all_is_read(other)
    return company, events


async def test_a_replay_ends_equal_to_the_log_whatever_had_become_of_the_copy(copies: Copies) -> None:
    company, events = await told(copies)
    before = await copies.rows()

    def of(event_id: UUID) -> Any:
        return ProjectedEvent.id == event_id

    planted = {"company_id": company, "id": new_id(), "epoch": 1, "version": 1, "status": "draft"}
    await change(copies, company, update(ProjectedEvent).where(of(events[0])).values(title=None))
    await change(copies, company, delete(ProjectedEvent).where(of(events[1])))
    await change(copies, company, update(ProjectedEvent).where(of(events[2])).values(version=99, title="never told"))
    await change(copies, company, update(ProjectedEvent).where(of(events[3])).values(version=1, title="first"))
    await change(copies, company, update(ProjectedEvent).where(of(events[5])).values(withheld_version=0))
    await change(copies, company, insert(ProjectedEvent).values(**planted))
    clients = KafkaClients(copies.kafka)
    replayed = await EVENTS.replay(copies.database, clients)
    assert await copies.rows() == before
    # What the log never held, and what was newer than it.
    assert replayed.removed == 2
    again = await EVENTS.replay(copies.database, clients)
    assert (await copies.rows(), again.removed) == (before, 0)
    assert again.applied == replayed.applied > len(events) * 2


async def test_what_cannot_be_read_is_no_proof_that_it_is_gone(copies: Copies) -> None:
    """Compaction may leave nothing of an event but what this version cannot read."""
    company, event_id = copies.new_company(), new_id()
    await copies.tell(company, event(event_id), 2, instead=with_a_new_status)
    await copies.until_all_is_read(company)
    known = {"version": 1, "epoch": 1, "status": "confirmed", "title": "Aurora"}
    await change(copies, company, update(ProjectedEvent).where(ProjectedEvent.id == event_id).values(**known))
    replayed = await EVENTS.replay(copies.database, KafkaClients(copies.kafka))
    assert replayed.unreadable >= 1
    kept = await copies.until(company, event_id, 1)
    assert (kept.title, kept.is_known) == ("Aurora", False)


async def test_a_record_that_arrives_during_a_replay_stays(copies: Copies) -> None:
    company, event_id = copies.new_company(), new_id()
    planted = {"company_id": company, "id": event_id, "epoch": 1, "version": 1, "status": "draft"}
    await change(copies, company, insert(ProjectedEvent).values(**planted))
    unseen = await EVENTS._revisions(copies.database)
    assert (company, event_id) in unseen
    await copies.tell(company, event(event_id), 2)
    await copies.until(company, event_id, 2)
    assert await EVENTS._remove(copies.database, {(company, event_id): unseen[company, event_id]}) == 0
    await copies.until(company, event_id, 2)


async def test_replays_at_once_while_states_come_lose_none(copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis.projections, "_CHUNK_RECORDS", 5)
    company, events = await told(copies)
    clients = KafkaClients(copies.kafka)
    running = [asyncio.create_task(EVENTS.replay(copies.database, clients)) for _ in range(2)]
    for version in range(4, 9):
        for event_id in events:
            await copies.tell(company, event(event_id, title=f"as of {version}"), version)
    assert [replayed.removed for replayed in await asyncio.gather(*running)] == [0, 0]
    for event_id in events:
        assert (await copies.until(company, event_id, 8)).title == "as of 8"


async def test_replays_lock_rows_in_one_order_whatever_order_they_read_them_in(copies: Copies) -> None:
    company, ids = CompanyId(new_id()), sorted(new_id() for _ in range(2))
    envelopes = [envelope_of(event(event_id), company, 1, 1) for event_id in ids]
    records = [Told(envelope.aggregate_id.encode(), encode(envelope)) for envelope in envelopes]
    for envelope in envelopes:
        async with copies.database.unit_of_work(company_id=company) as work:
            await EVENTS.apply(work, envelope)

    async def replayed(chunk: list[Told]) -> None:
        reading = _Reading(EVENTS, copies.database, {}, _chunk=chunk)
        await reading._apply_chunk()

    async def waiting() -> int:
        async with copies.database.unit_of_work() as work:
            return await work.scalar(text("select count(distinct pid) from pg_locks where not granted")) or 0

    async with copies.database.unit_of_work(company_id=company) as work:
        await work.get_one(ProjectedEvent, (company, ids[1]), with_for_update=True)
        running = []
        for chunk in (records[::-1], records):
            running.append(asyncio.create_task(replayed(chunk)))
            await wait_until(waiting, lambda count: count == len(running), describe="it waits for a row")
    await asyncio.gather(*running)
    # Nothing of them stands in the log.
    await change(copies, company, delete(ProjectedEvent))


async def test_a_replay_that_is_ended_midway_has_made_nothing_older(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.projections, "_CHUNK_RECORDS", 1)
    company, events = await told(copies)
    before = await copies.rows()
    await change(copies, company, update(ProjectedEvent).values(title=None).where(ProjectedEvent.status == "confirmed"))
    replaying = asyncio.create_task(EVENTS.replay(copies.database, KafkaClients(copies.kafka)))

    async def titles() -> list[str | None]:
        rows = [await copies.event(company, event_id) for event_id in events[:4]]
        return [row.title for row in rows if row is not None]

    await wait_until(titles, lambda found: found.count("second") > 0, describe="the first rows are filled")
    await end_tasks(replaying)
    with contextlib.suppress(asyncio.CancelledError):
        await replaying
    revisions = {key: row[2:6] for key, row in (await copies.rows()).items()}
    assert revisions == {key: row[2:6] for key, row in before.items()}
    await EVENTS.replay(copies.database, KafkaClients(copies.kafka))
    assert await copies.rows() == before


async def test_an_operator_replays_a_copy(copies: Copies, tmp_path: Path) -> None:
    company, events = await told(copies)
    await change(copies, company, delete(ProjectedEvent))
    environment = {f"KISUM_FINANCE_{name}": value for name, value in copies.settings.items()}
    environment["KISUM_FINANCE_FILES_URL"] = (tmp_path / "files").as_uri()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "replay", "finance", "--projection", EVENTS.name),
        env={**os.environ, **environment, "KISUM_HOME": str(tmp_path / "nowhere")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert "0 rows it does not tell of were removed" in out.decode()
    assert (await copies.asked(company, events[0])).title == "second"


def test_a_copy_that_is_not_kept_is_named() -> None:
    outcome = CliRunner().invoke(replay, ["finance", "--projection", "events"])
    assert isinstance(outcome.exception, CannotStart)
    assert str(outcome.exception) == (
        "finance keeps no copy of 'events'; it keeps: access, promoter.events.v1, promoter.artists.v1"
    )


async def test_what_many_events_cannot_say_to_this_version_stops_no_consumer(copies: Copies) -> None:
    async with following(copies):
        company = copies.new_company()
        for _ in range(22):
            await copies.tell(company, event(new_id()), instead=with_a_new_status)
        await copies.until_all_is_read(company)
