"""Events and artists on their topics: what is committed is what the log ends with, whatever happened to the log."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import func, select

import chassis.states
from chassis.audit import AuditEntry
from contracts.envelope import Envelope, decode
from contracts.events.promoter import ArtistStatus, EventStatus
from contracts.identifiers import CompanyId, new_id
from contracts.topics import wire_name
from infra.kafka.bootstrap import bootstrap
from services.promoter.app import service
from services.promoter.artists.operations import ARTIST_STATES
from services.promoter.artists.tables import Artist
from services.promoter.events.operations import EVENT_STATES
from services.promoter.events.tables import Event
from tests.harness.modules import RunningModule
from tests.harness.runtime import Runtime
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import running
from tests.integration.outbox.test_restored_services import PASSWORD, Restored, restored
from tests.integration.promoter import test_artists, test_events

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)


async def newest(promoter: RunningModule, states: Any) -> dict[str, Envelope[Any]]:
    """What compaction would leave of a topic."""
    kafka = promoter.sources.kafka
    consumer = AIOKafkaConsumer(**kafka.aiokafka(), group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        name = wire_name(kafka.topic_prefix, states.topic.name)
        partitions = [TopicPartition(name, number) for number in range(states.topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        found: dict[str, Envelope[Any]] = {}
        while any([await consumer.position(one) < ends[one] for one in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    found[record.key.decode()] = decode(record.value, states.topic.payloads)
        return found
    finally:
        await consumer.stop()


async def test_every_write_ends_on_the_topic_with_its_version_and_its_author(promoter: RunningModule) -> None:
    person = await promoter.person()
    event = await test_events.create(person, business_unit_id=test_events.ONE)
    await test_events.move(person, event, "plan")
    await test_events.edit(person, event, title="Aurora")
    artist = await test_artists.create(person)

    async def published() -> tuple[Any, Any]:
        of_event = (await newest(promoter, EVENT_STATES)).get(f"{person.company_id}/{event['id']}")
        of_artist = (await newest(promoter, ARTIST_STATES)).get(f"{person.company_id}/{artist['id']}")
        return of_event, of_artist

    told, of_artist = await wait_until(
        published, lambda found: None not in found and found[0].version == 3, describe="the newest states are published"
    )
    assert (told.company_id, told.actor_user_id) == (person.company_id, person.user_id)
    assert (told.data.status, told.data.title) == (EventStatus.HOLD, "Aurora")
    assert str(told.data.business_unit_id) == test_events.ONE
    assert told.data.times.time_zone == "Europe/Oslo"
    assert told.data.times.starts_at == datetime(2026, 6, 18, 15, tzinfo=UTC)
    assert (of_artist.version, of_artist.data.stage_name) == (1, "The Night Ferries")
    assert of_artist.data.status is ArtistStatus.ACTIVE


@pytest_asyncio.fixture(loop_scope="session")
async def owner(runtime: Runtime) -> AsyncIterator[Restored]:
    async with restored(runtime, service, lambda _: {}) as found:
        yield found


def event_of(company_id: UUID) -> Event:
    return Event(
        id=new_id(), company_id=company_id, state="draft", title="Night", version=1, created_by=new_id(), created_at=NOW
    )


async def fill(owner: Restored, companies: int, events: int) -> set[str]:
    """Events and one artist in each of some companies; the keys of the events."""
    keys = set()
    for _ in range(companies):
        company = CompanyId(new_id())
        async with owner.database.unit_of_work(company_id=company) as work:
            rows = [event_of(company) for _ in range(events)]
            artist = Artist(
                id=new_id(), company_id=company, stage_name="x", version=4, created_by=new_id(), created_at=NOW
            )
            work.add_all([*rows, artist])
            for row in rows:
                await EVENT_STATES.publish(work, row, actor=None, now=NOW)
            await ARTIST_STATES.publish(work, artist, actor=None, now=NOW)
        keys |= {f"{company}/{row.id}" for row in rows}
    return keys


async def test_a_restored_database_publishes_all_it_knows_of_every_company_and_withdraws_the_rest(
    owner: Restored,
) -> None:
    keys = await fill(owner, companies=4, events=3)
    async with running(owner.relay()):
        await owner.drained()
    before = await owner.states_of(await owner.log())
    assert {key for topic, key in before if topic == EVENT_STATES.topic.name} == keys
    known_company = CompanyId(UUID(next(iter(keys)).partition("/")[0]))
    lost = [
        await owner.forge(EVENT_STATES._state(event_of(company)), company_id=company)
        for company in (known_company, CompanyId(new_id()))
    ]
    artist = await owner.forge(
        ARTIST_STATES._state(Artist(id=new_id(), stage_name="Gone", genre=None, country=None)), company_id=known_company
    )
    said = await owner.states_of(await owner.restore())
    assert {event.epoch for event in said.values()} == {2}
    assert {subject: (said[subject].version, said[subject].data) for subject in before} == {
        subject: (event.version, event.data) for subject, event in before.items()
    }
    removed = {subject: event for subject, event in said.items() if subject not in before}
    assert set(removed) == {*((EVENT_STATES.topic.name, key) for key in lost), (ARTIST_STATES.topic.name, artist)}
    assert {str(event.data.status) for event in removed.values()} == {"removed"}
    assert all(str(event.company_id) == key.partition("/")[0] for (_, key), event in said.items())


async def test_a_topic_that_was_lost_is_filled_again(owner: Restored, runtime: Runtime) -> None:
    await fill(owner, companies=3, events=2)
    async with running(owner.relay()):
        await owner.drained()
    before = await owner.states_of(await owner.log())
    anew = replace(owner, admin=replace(runtime.kafka_admin, topic_prefix=runtime.new_prefix()))
    await asyncio.to_thread(bootstrap, anew.admin, owner.topics, {owner.service: PASSWORD})
    async with running(anew.relay()):

        async def log() -> dict[Any, Any]:
            # A log that is shorter than the one that was lost is first filled with null records.
            records = {subject: record for subject, record in (await anew.log()).items() if record.value is not None}
            return await anew.states_of(records)

        after = await wait_until(log, lambda found: set(found) == set(before), describe="all is published again")
    assert {subject: event.data for subject, event in after.items()} == {
        subject: event.data for subject, event in before.items()
    }


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_every_key_of_every_company_is_found_page_by_page(
    owner: Restored, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(chassis.states, "_COMPANIES_PAGE_ROWS", 2)
    keys = await fill(owner, companies=5, events=2)
    found: list[str] = []
    while True:
        async with owner.database.unit_of_work() as work:
            page = await EVENT_STATES.keys(work, after=found[-1] if found else None, limit=limit)
        found += page
        if len(page) < limit:
            break
    assert found == sorted(keys)


async def test_publishing_again_above_a_version_writes_it_to_the_row_whatever_company_came_before(
    owner: Restored,
) -> None:
    keys = sorted(await fill(owner, companies=3, events=1))
    async with owner.database.unit_of_work() as work:
        for above, key in enumerate(keys, 10):
            revision = await EVENT_STATES.republish(work, key, now=NOW, above=above)
            assert revision is not None
            assert (revision.key, revision.version) == (key, above + 1)
        assert await EVENT_STATES.republish(work, f"{new_id()}/{keys[0].partition('/')[2]}", now=NOW) is None
    for above, key in enumerate(keys, 10):
        company, _, event_id = key.partition("/")
        async with owner.database.unit_of_work(company_id=CompanyId(UUID(company))) as work:
            rows = await work.execute(select(Event.id, Event.version))
            assert [(row.id, row.version) for row in rows] == [(UUID(event_id), above + 1)]
            assert await work.scalar(select(func.count()).select_from(AuditEntry)) == 0, "nobody changed anything"


@pytest.mark.parametrize("key", ["", "x", str(new_id()), f"{new_id()}/x", f"{new_id()}/{new_id()}/", f" {new_id()}/"])
def test_what_is_no_key_is_told_apart(key: str) -> None:
    assert not EVENT_STATES.is_key(key)
    assert EVENT_STATES.is_key(f"{new_id()}/{new_id()}")
