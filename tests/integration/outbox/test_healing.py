"""Whatever somebody else puts into an owned log: readers come to hold what the database says, and the rest go on."""

import asyncio
import json
from collections.abc import Callable, Sequence

from contracts.payload import VERSION_MAX
from infra.kafka.clients import KafkaClients, Outgoing
from infra.kafka.partitioner import partition_of
from infra.outbox.relay import Relay
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import (
    COMPANY,
    HEARTBEATS,
    MEMBERSHIPS,
    Owner,
    beats,
    drained,
    heartbeats,
    key_of,
    next_heartbeat,
    record_of,
    running,
    user,
)
from tests.integration.outbox.reader import Reader, holds


def no_json(_: int) -> bytes | None:
    return b"\xff\xfe"


def nothing(_: int) -> bytes | None:
    return None


def empty(_: int) -> bytes | None:
    return b""


def cut_off(number: int) -> bytes | None:
    return record_of(number, 2)[:-40]


def version_0(number: int) -> bytes | None:
    return record_of(number, 2).replace(b'"version":2', b'"version":0')


def of_the_future(number: int) -> bytes | None:
    return record_of(number, 2).replace(b'"active"', b'"sleeping"')


def of_another_key(number: int) -> bytes | None:
    return record_of(number + 500, 2)


def older_and_ambiguous(number: int) -> bytes | None:
    document = json.loads(record_of(number, 1))
    document["data"]["modules"] *= 2
    return json.dumps(document).encode()


def beyond_all_counting(number: int) -> bytes | None:
    return record_of(number, VERSION_MAX + 7).replace(b'"active"', b'"sleeping"')


def near_the_last_version(number: int) -> bytes | None:
    return record_of(number, VERSION_MAX - 1).replace(b'"active"', b'"sleeping"')


UNREADABLE: Sequence[Callable[[int], bytes | None]] = (
    no_json,
    nothing,
    empty,
    cut_off,
    version_0,
    of_the_future,
    of_another_key,
    older_and_ambiguous,
    beyond_all_counting,
    near_the_last_version,
)


async def test_a_record_nobody_can_read_is_followed_by_a_newer_one(owner: Owner) -> None:
    numbers = range(len(UNREADABLE) + 1)
    for _ in range(2):
        for number in numbers:
            await owner.write(number)
    async with running(owner.relay()):
        await drained(owner)
        for number, unreadable in enumerate(UNREADABLE):
            await owner.forge(MEMBERSHIPS, key_of(number).encode(), unreadable(number))
        await holds(owner, {number: (3 if number < len(UNREADABLE) else 2, "active") for number in numbers})
        versions = await owner.rows("select version from members order by key")
        assert [row["version"] for row in versions] == [3] * len(UNREADABLE) + [2]
        await next_heartbeat(owner)


async def test_a_newer_version_than_the_rows_is_followed_by_one_above_it(owner: Owner) -> None:
    await owner.write(1, "removed")
    async with running(owner.relay()):
        await drained(owner)
        await owner.forge(MEMBERSHIPS, key_of(1).encode(), record_of(1, 40, "active"))
        await holds(owner, {1: (41, "removed")})
        await owner.write(1, "suspended")
        await holds(owner, {1: (42, "suspended")})


async def test_a_forged_record_of_the_very_next_version_does_not_stay(owner: Owner) -> None:
    await owner.write(1, "active")
    async with running(owner.relay()):
        await drained(owner)
    await owner.forge(MEMBERSHIPS, key_of(1).encode(), record_of(1, 2, "active"))
    await owner.write(1, "removed")
    async with running(owner.relay()):
        await wait_until(owner.last_states, lambda s: s[key_of(1)][0] > 2, describe="it is published above")
        await drained(owner)
    reader = await Reader.of(owner)
    assert reader.holds({1: (3, "removed")})


async def test_a_key_the_database_does_not_know_is_published_as_removed(owner: Owner) -> None:
    await owner.write(1)
    async with running(owner.relay()):
        await drained(owner)
        await owner.forge(MEMBERSHIPS, key_of(7).encode(), record_of(7, 5, "active"))
        await owner.forge(MEMBERSHIPS, key_of(8).encode(), b"no JSON")
        await holds(owner, {1: (1, "active"), 7: (6, "removed"), 8: (1, "removed")})
        await owner.write(7, "active")
        await holds(owner, {1: (1, "active"), 7: (7, "active"), 8: (1, "removed")})


KEYS: Sequence[bytes] = (b"", b"no key", b"\xff\x00", f"{COMPANY}/{user(0xAB)}".upper().encode(), b"x" * 5000)


async def test_a_key_nobody_can_read_is_answered_with_a_null_record_of_its_bytes(owner: Owner) -> None:
    await owner.write(1)
    async with running(owner.relay()):
        await drained(owner)
        for number, key in enumerate(KEYS):
            await owner.forge(MEMBERSHIPS, key, record_of(1, 9, "active"), partition=number)

        async def read() -> Reader:
            return await Reader.of(owner)

        await wait_until(read, lambda reader: reader.is_well, describe="no partition is blocked")
        await next_heartbeat(owner)
    # Its own null records are no reason for others, not even to a leader that knows nothing of them.
    await owner.rows("update outbox_partitions set checked_offset = 0")
    async with running(owner.relay()):
        await next_heartbeat(owner)
    nulls = [record for record in await owner.log_of(MEMBERSHIPS.name) if record.value is None]
    assert sorted((record.partition, record.key) for record in nulls) == list(enumerate(KEYS))


async def test_a_record_in_another_partition_than_its_keys_is_answered_in_both(owner: Owner) -> None:
    values = [unreadable(number) for number, unreadable in enumerate(UNREADABLE)]
    values.append(record_of(len(values), 40, "active"))
    for _ in range(2):
        for number in range(len(values)):
            await owner.write(number, "removed")
    expected = {number: (2 if value is None else 3, "removed") for number, value in enumerate(values)}
    expected[len(values) - 1] = 41, "removed"
    async with running(owner.relay()):
        await drained(owner)
        for number, value in enumerate(values):
            key = key_of(number).encode()
            other = (partition_of(key, MEMBERSHIPS.partitions) + 1 + number % 5) % MEMBERSHIPS.partitions
            await owner.forge(MEMBERSHIPS, key, value, partition=other)
        await holds(owner, expected)
        await next_heartbeat(owner)
    log = sorted(await owner.log_of(MEMBERSHIPS.name), key=lambda record: record.offset)
    for direction in (1, -1):
        reader = Reader()
        for record in sorted(log, key=lambda record: direction * record.partition):
            reader.read(record)
        assert reader.holds(expected)
    assert sum(record.value is None for record in log) == len(values)


async def test_a_flood_of_foreign_records_of_a_key_is_answered_a_few_times(owner: Owner) -> None:
    await owner.write(1)
    async with running(owner.relay()):
        await drained(owner)
    await forge_many(owner, [(key_of(1).encode(), b"forged") for _ in range(5000)])
    async with running(owner.relay()):
        await holds(owner, {1: (2, "active")})
        await owner.write(2)
        await holds(owner, {1: (2, "active"), 2: (1, "active")})
        await next_heartbeat(owner)
    assert len(await owner.log_of(MEMBERSHIPS.name)) < 5010


async def test_a_state_of_a_later_epoch_is_no_heartbeat_until_the_restore_was_finished(owner: Owner) -> None:
    await owner.write(1, "removed")
    async with running(owner.relay()) as relay:
        await next_heartbeat(owner)
        await owner.forge(MEMBERSHIPS, key_of(1).encode(), record_of(1, 1, "active", epoch=3))
        await wait_until(lambda: asyncio.sleep(0, relay.doubt), bool, describe="it is told")
        count = len(await heartbeats(owner))
        await owner.write(2, "removed")
        await drained(owner)
    async with running(owner.relay()) as relay:
        await overtaken(relay)
        await owner.write(3)
        await drained(owner)
        assert len(await heartbeats(owner)) == count
        await owner.rows("insert into outbox_restores default values")
        await wait_until(
            lambda: beats(owner), lambda b: b[-1].data.epoch_complete and b[-1].epoch == 4, describe="it is finished"
        )
        assert relay.doubt is None
    assert (await Reader.of(owner)).is_well
    assert (await owner.last_states())[key_of(1)] == (1, "removed")


async def overtaken(relay: Relay) -> None:
    await wait_until(
        lambda: asyncio.sleep(0, relay.doubt),
        lambda doubt: doubt is not None and "epoch 3" in doubt,
        describe="the next leader finds it too",
    )


async def test_of_a_database_put_back_in_silence_nothing_is_said_before_the_log_is_as_it_says(owner: Owner) -> None:
    """Heartbeats are gone after an hour, and a file system that was put back says nothing of it."""
    async with running(owner.relay()):
        for number in range(40):
            await owner.write(number, "removed")
        await drained(owner)
        backup = await owner.save()
        for number in range(60):
            await owner.write(number, "active")
        await drained(owner)
    await owner.put_back(backup)
    await owner.make_again(HEARTBEATS)
    async with running(owner.relay()):
        await wait_until(lambda: heartbeats(owner), bool, describe="a heartbeat")
        (first, *_) = await heartbeats(owner)
        ends = {position.partition: position.next_offset for position in first.positions}
    reader = await Reader.of(owner, ends=ends)
    assert reader.holds(dict.fromkeys(range(60), (3, "removed")) | dict.fromkeys(range(40, 60), (2, "removed")))


async def forge_many(owner: Owner, records: Sequence[tuple[bytes, bytes]]) -> None:
    producer = KafkaClients(owner.admin).producer(client_id="flood", batch_size_max_bytes=100_000)
    await producer.start()
    name = owner.admin.topic_prefix + MEMBERSHIPS.name
    by_partition: dict[int, list[Outgoing]] = {}
    for key, value in records:
        by_partition.setdefault(partition_of(key, MEMBERSHIPS.partitions), []).append(Outgoing(key, value))
    for partition, outgoing in by_partition.items():
        sent = 0
        while sent < len(outgoing):
            _, count = await producer.send_batch(name, partition, outgoing[sent:])
            sent += count
    await producer.give_up()
