"""A topic that was made again or is shorter: no heartbeat until all of it is published anew, by whoever leads then."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from contracts.envelope import encode
from contracts.identifiers import CompanyId, new_id
from infra.kafka.clients import KafkaClients
from infra.kafka.partitioner import partition_of
from infra.outbox.bulk import CHUNK_ROWS_MAX
from infra.outbox.relay import Relay
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import (
    HEARTBEATS,
    MEMBERSHIPS,
    SUBSCRIPTIONS,
    Owner,
    beats,
    drained,
    heartbeats,
    key_of,
    next_heartbeat,
    publish_trial,
    running,
)
from tests.integration.outbox.reader import Reader, holds

NUMBERS = range(30)
STATES = dict.fromkeys(NUMBERS, (1, "active"))


async def write_all(owner: Owner) -> None:
    for number in NUMBERS:
        await owner.write(number)
    async with running(owner.relay()):
        await drained(owner)
        await next_heartbeat(owner)


@asynccontextmanager
async def held(owner: Owner, number: int) -> AsyncIterator[None]:
    """Nobody publishes this member as long as this lasts."""
    async with owner.database.unit_of_work() as work:
        await work.execute(text("select from members where key = :key for update"), {"key": key_of(number)})
        yield


async def lost(relay: Relay) -> None:
    await wait_until(lambda: asyncio.sleep(0, relay.lost_topics), bool, describe="it is noticed")


async def rounds_go_on(relay: Relay) -> None:
    """Long enough for heartbeats, were any to be sent."""
    seen = {relay.as_of}

    async def times() -> int:
        seen.add(relay.as_of)
        return len(seen)

    await wait_until(times, lambda n: n > 4, describe="rounds go on")


async def all_is_there_again(owner: Owner) -> None:
    """The first heartbeat of the topic there is now proves all of it."""
    ids = {row["topic_id"] for row in await owner.rows("select topic_id from outbox_partitions")}
    before = {beat.positions[0].topic_id for beat in await heartbeats(owner)}
    assert len(ids) == 1
    found = await wait_until(
        lambda: heartbeats(owner),
        lambda all_: all_[-1].positions[0].topic_id not in before,
        describe="heartbeats again",
    )
    first = next(beat for beat in found if beat.positions[0].topic_id not in before)
    assert len({position.topic_id for position in first.positions}) == 1
    reader = await Reader.of(owner, ends={position.partition: position.next_offset for position in first.positions})
    assert reader.holds(STATES)


async def published_anew(owner: Owner, *, at_least: int) -> None:
    """The next heartbeat tells of so many records of each key."""
    await next_heartbeat(owner)
    records = Counter(record.key for record in await owner.log_of(MEMBERSHIPS.name) if record.value is not None)
    assert {records[key_of(number).encode()] >= at_least for number in NUMBERS} == {True}


async def test_a_topic_made_again_is_published_anew_before_a_heartbeat_speaks_of_it(owner: Owner) -> None:
    await write_all(owner)
    async with running(owner.relay()) as relay:
        await next_heartbeat(owner)
        async with held(owner, 17):
            await owner.make_again(MEMBERSHIPS)
            await lost(relay)
            count = len(await heartbeats(owner))
            await rounds_go_on(relay)
            assert len(await heartbeats(owner)) == count
        await all_is_there_again(owner)
        assert relay.lost_topics == frozenset()
        assert await owner.rows("select from outbox_partitions where lost_at is not null") == []


async def test_a_topic_made_again_while_nobody_led_is_published_anew(owner: Owner) -> None:
    await write_all(owner)
    await owner.make_again(MEMBERSHIPS)
    async with running(owner.relay()):
        await all_is_there_again(owner)
        await owner.write(0, "removed")
        await holds(owner, {**STATES, 0: (2, "removed")})


async def test_the_next_leader_publishes_anew_what_the_last_one_did_not_finish(owner: Owner) -> None:
    await write_all(owner)
    async with held(owner, 17):
        await owner.make_again(MEMBERSHIPS)
        async with running(owner.relay()) as relay:
            await lost(relay)
        assert await owner.rows("select from outbox_partitions where lost_at is not null") != []
        count = len(await heartbeats(owner))
        async with running(owner.relay()) as relay:
            await lost(relay)
            await rounds_go_on(relay)
            assert len(await heartbeats(owner)) == count
            # And once more, while it is at it.
            await owner.make_again(MEMBERSHIPS)
    async with running(owner.relay()):
        await all_is_there_again(owner)


async def test_a_topic_made_again_while_it_is_published_anew_is_begun_again(owner: Owner) -> None:
    """Its first chunk is in a log that is gone by the time the second is there."""
    numbers = range(CHUNK_ROWS_MAX + 30)
    async with owner.database.unit_of_work() as work:
        for number in numbers:
            await owner.write_in(work, number)
    async with running(owner.relay()) as relay:
        await drained(owner)
        await next_heartbeat(owner)
        before = {beat.positions[0].topic_id for beat in await heartbeats(owner)}
        async with held(owner, numbers[-1]):
            await owner.make_again(MEMBERSHIPS)
            await wait_until(
                owner.last_keys, lambda keys: len(keys) == CHUNK_ROWS_MAX, describe="the first chunk is there"
            )
            await owner.make_again(MEMBERSHIPS)
            # The new log begins with a null record of the leader that has noticed.
            await wait_until(lambda: owner.log_of(MEMBERSHIPS.name), bool, describe="it is noticed again")
            await rounds_go_on(relay)
        found = await wait_until(
            lambda: heartbeats(owner),
            lambda all_: all_[-1].positions[0].topic_id not in before,
            describe="heartbeats again",
        )
    first = next(beat for beat in found if beat.positions[0].topic_id not in before)
    reader = await Reader.of(owner, ends={position.partition: position.next_offset for position in first.positions})
    assert reader.holds(dict.fromkeys(numbers, (1, "active")))


async def test_what_is_published_anew_lies_behind_all_that_a_shorter_log_ever_held(owner: Owner) -> None:
    """Who had read further than the log now goes reads on where it was, and must not miss a thing."""
    await write_all(owner)
    partition = partition_of(key_of(5).encode(), MEMBERSHIPS.partitions)
    of_partition = [n for n in NUMBERS if partition_of(key_of(n).encode(), MEMBERSHIPS.partitions) == partition]
    positions = {position.partition: position.next_offset for position in (await heartbeats(owner))[-1].positions}
    await owner.shorten(MEMBERSHIPS, partition=partition, by=300)
    count = len(await heartbeats(owner))
    async with running(owner.relay()):
        found = await wait_until(lambda: heartbeats(owner), lambda h: len(h) > count, describe="heartbeats again")
    ends = {position.partition: position.next_offset for position in found[count].positions}
    reader = await Reader.of(owner, begins={**positions, partition: positions[partition] + 300}, ends=ends)
    assert reader.holds(STATES)
    assert len(of_partition) > 1
    assert (await Reader.of(owner)).is_well


async def test_a_log_that_is_shorter_than_its_last_heartbeat_told_was_lost(owner: Owner) -> None:
    """A database that was put back knows only of an earlier end, and readers have come further."""
    await write_all(owner)
    told = (await beats(owner))[-1]
    first = told.data.positions[0]
    longer = told.data.model_copy(
        update={
            "positions": (first.model_copy(update={"next_offset": first.next_offset + 5}), *told.data.positions[1:])
        }
    )
    await owner.forge(HEARTBEATS, b"auth", encode(told.model_copy(update={"data": longer})))
    async with running(owner.relay()):
        await published_anew(owner, at_least=2)
        found = await heartbeats(owner)
        end = next(each.next_offset for each in found[-1].positions if each.partition == first.partition)
        assert end > first.next_offset + 5


async def test_a_log_that_was_filled_by_a_leader_whose_database_was_put_back_was_lost(owner: Owner) -> None:
    await write_all(owner)
    await owner.forge(MEMBERSHIPS, b"", None, partition=0)
    async with running(owner.relay()):
        await published_anew(owner, at_least=2)


async def test_a_log_of_facts_that_was_lost_is_an_alarm_and_the_next_facts_go_into_the_new_one(owner: Owner) -> None:
    company = CompanyId(new_id())
    relay = owner.relay(kafka=KafkaClients(owner.admin), topics=(SUBSCRIPTIONS,), sources={})
    async with running(relay):
        async with owner.database.unit_of_work() as work:
            await publish_trial(work, company, 1)
        await drained(owner)
        (before,) = {row["topic_id"] for row in await owner.rows("select topic_id from outbox_partitions")}
        await owner.make_again(SUBSCRIPTIONS)
        await wait_until(lambda: asyncio.sleep(0, relay.lost_facts), bool, describe="it is told")
        async with owner.database.unit_of_work() as work:
            await publish_trial(work, company, 2)
        await drained(owner)
    stored = {(row["topic_id"], row["lost_at"]) for row in await owner.rows("select * from outbox_partitions")}
    assert {lost_at for _, lost_at in stored} == {None}
    assert before not in {topic_id for topic_id, _ in stored}
    assert len(await owner.log_of(SUBSCRIPTIONS.name)) == 1
    async with running(owner.relay(kafka=KafkaClients(owner.admin), topics=(SUBSCRIPTIONS,), sources={})) as again:
        await rounds_go_on(again)
        assert again.lost_facts == frozenset()


async def test_a_state_that_waits_for_its_deletion_is_sent_to_the_new_log_too(owner: Owner) -> None:
    await write_all(owner)
    async with running(owner.relay()):
        await next_heartbeat(owner)
        await owner.write(0, "removed")
        await drained(owner)
        async with owner.database.unit_of_work() as holder:
            await owner.write_in(holder, 29)
            await holder.commit()
            # As weak a lock as keeps the relay from deleting the row, and nobody from publishing again.
            locked = text("select from outbox_states where key = :key for key share")
            await holder.execute(locked, {"key": key_of(29)})
            await holds(owner, {**STATES, 0: (2, "removed"), 29: (2, "active")})
            await owner.make_again(MEMBERSHIPS)
            await holds(owner, {**STATES, 0: (2, "removed"), 29: (2, "active")})
        await drained(owner)
