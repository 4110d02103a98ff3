"""What the simulated cluster can be made to do beyond what tests/integration/test_kafka_clients.py asks of both."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from random import Random
from typing import Final

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
)

from infra.kafka.clients import Outgoing, Record, RecordProducer, RecordReader
from infra.kafka.producer import REQUEST_TIMEOUT_SECONDS
from tests.simulation.kafka import SimulatedBroker, SimulatedKafka, SimulatedRecord
from tests.simulation.loop import Process, SimulatedLoop

STATES: Final = "auth.memberships.v1"
PERMISSIONS: Final = "auth.permissions.v1"
HEARTBEATS: Final = "auth.heartbeats.v1"
SEEDS: Final = range(60)
HOUR_SECONDS: Final = 3600.0


@dataclass
class World:
    """A cluster, and processes with clients of it."""

    loop: SimulatedLoop
    broker: SimulatedBroker

    async def producer(self, process: Process) -> RecordProducer:
        made = SimulatedKafka(self.broker, process).producer(client_id="a-producer", batch_size_max_bytes=100_000)
        await made.start()
        return made

    @asynccontextmanager
    async def reader(self, process: Process, positions: dict[tuple[str, int], int]) -> AsyncIterator[RecordReader]:
        made = SimulatedKafka(self.broker, process).reader(
            client_id="a-reader", wait_max_milliseconds=500, partition_fetch_max_bytes=1024 * 1024
        )
        await made.start()
        made.assign({TopicPartition(*partition): offset for partition, offset in positions.items()})
        yield made
        await made.stop()

    async def send(self, producer: RecordProducer, topic: str, partition: int, *values: str) -> int | KafkaError | None:
        """The first offset, an error, or nothing within the time a relay waits."""
        records = [Outgoing(b"key " + value[:1].encode(), value.encode()) for value in values]
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                return (await producer.send_batch(topic, partition, records))[0]
        except TimeoutError:
            return None
        except KafkaError as error:
            return error

    def values(self, topic: str, partition: int = 0) -> list[str]:
        return values(self.broker.records(topic, partition))


History = Callable[[World], Awaitable[object]]


def values(records: Sequence[Record] | Sequence[SimulatedRecord]) -> list[str]:
    return [(record.value or b"").decode() for record in records]


def run(history: History, seed: int = 1) -> World:
    """One world and what is left of it."""
    random = Random(seed)

    async def whole(world: World) -> None:
        await history(world)

    with closing(SimulatedLoop(random)) as loop:
        world = World(loop, SimulatedBroker(loop, random))
        loop.run_until_complete(whole(world))
        assert loop.exceptions == []
        return world


async def read_all(reader: RecordReader, *, quiet_milliseconds: int = 2000) -> list[Record]:
    """What comes until nothing comes any more."""
    found: list[Record] = []
    while batches := await reader.read(timeout_milliseconds=quiet_milliseconds, records_max=100):
        for records in batches.values():
            found += records
    return found


# The way of a batch.


def test_the_same_seed_makes_the_same_log() -> None:
    async def history(world: World) -> None:
        world.broker.network.late_batches = 0.2
        world.broker.lose_acknowledgements(20)
        for number in range(5):
            producer = await world.producer(world.loop.process(f"owner {number}"))
            await asyncio.gather(*(world.send(producer, STATES, part, f"{number}") for part in range(6)))
            await producer.give_up()
        await asyncio.sleep(60)

    def log(seed: int) -> list[SimulatedRecord]:
        return run(history, seed).broker.records(STATES)

    assert log(5) == log(5)
    assert log(5) != log(6)


def test_partitions_overtake_each_other_and_no_partition_itself() -> None:
    orders = Counter[str]()
    for seed in SEEDS:
        arrived: list[str] = []

        async def history(world: World, arrived: list[str] = arrived) -> None:
            producer = await world.producer(world.loop.process("owner"))

            async def send(partition: int, value: str) -> None:
                await world.send(producer, STATES, partition, value)
                arrived.append(value)

            await asyncio.gather(*(send(partition, f"{partition}{n}") for n in range(3) for partition in range(2)))
            for partition in range(2):
                assert world.values(STATES, partition) == [f"{partition}{n}" for n in range(3)]

        run(history, seed)
        orders[" ".join(arrived)] += 1
    assert len(orders) > 5


def test_a_session_has_each_batch_once_whatever_becomes_of_its_acknowledgements() -> None:
    answers = Counter[str]()
    for seed in SEEDS:

        async def history(world: World) -> None:
            world.broker.network.lost_acknowledgements = 0.4
            world.broker.network.lost_batches = 0.2
            world.broker.network.late_batches = 0.2
            producer = await world.producer(world.loop.process("owner"))
            sent: list[str] = []
            for number in range(6):
                answer = await world.send(producer, PERMISSIONS, 0, f"{number} a", f"{number} b")
                sent += [f"{number} a", f"{number} b"]
                answers[type(answer).__name__] += 1
                if isinstance(answer, int):
                    assert world.values(PERMISSIONS)[answer : answer + 2] == sent[-2:]
                else:
                    break
            await asyncio.sleep(100)
            # What was not acknowledged may be there or not; all else is there once, in order.
            assert world.values(PERMISSIONS) in (sent, sent[:-2])

        run(history, seed)
    assert answers["int"] > len(SEEDS), "more than one of a history is acknowledged"
    assert answers["NoneType"] > 5
    assert len(answers) == 4


def test_a_batch_that_was_given_up_can_still_arrive_and_after_a_newer_one() -> None:
    logs = Counter[tuple[str, ...]]()
    for seed in SEEDS:

        async def history(world: World) -> None:
            process = world.loop.process("owner")
            old = await world.producer(process)
            world.broker.network.late_batches = 1.0
            asyncio.create_task(world.send(old, PERMISSIONS, 0, "old"))  # noqa: RUF006  the loop holds it
            await asyncio.sleep(0.01)
            await old.give_up()
            world.broker.network.late_batches = 0.0
            new = await world.producer(process)
            assert await world.send(new, PERMISSIONS, 0, "new") in (0, 1)
            await asyncio.sleep(60)
            with pytest.raises(ProducerClosed):
                await old.send_batch(PERMISSIONS, 0, [Outgoing(b"key", b"later")])

        logs[tuple(run(history, seed).values(PERMISSIONS))] += 1
    assert logs[("new",)] > 5
    assert logs["new", "old"] > 5
    assert sum(logs.values()) == logs["new",] + logs["new", "old"] + logs["old", "new"]


@pytest.mark.parametrize("fate", ["killed", "frozen"])
def test_what_a_process_had_sent_goes_its_own_way(fate: str) -> None:
    logs = Counter[tuple[str, ...]]()
    for seed in SEEDS:
        answered: list[object] = []

        async def history(world: World, answered: list[object] = answered) -> None:
            process, other = world.loop.process("owner"), world.loop.process("other")
            old, new = await world.producer(process), await world.producer(other)

            async def send() -> None:
                answered.append(await world.send(old, PERMISSIONS, 0, "its last"))

            world.broker.network.latency_seconds = (1.0, 3.0)
            process.start(send())
            await asyncio.sleep(0.5)
            world.broker.network.latency_seconds = (0.001, 0.001)
            if fate == "killed":
                process.kill()
            else:
                process.freeze()
            await asyncio.sleep(1.5)
            assert await world.send(new, PERMISSIONS, 0, "another's") in (0, 1)
            await asyncio.sleep(60)
            assert answered == []
            process.thaw()
            await asyncio.sleep(60)

        logs[tuple(run(history, seed).values(PERMISSIONS))] += 1
        assert len(answered) == (fate == "frozen")
    assert logs["its last", "another's"] > 2
    assert logs["another's", "its last"] > 2
    assert (logs[("another's",)] > 2) is (fate == "killed")


def test_a_batch_sent_again_may_be_acknowledged_without_its_offset() -> None:
    async def history(world: World) -> None:
        world.broker.network.forgotten_offsets = 1.0
        world.broker.network.lost_acknowledgements = 0.5
        producer = await world.producer(world.loop.process("owner"))
        answers = [await world.send(producer, PERMISSIONS, 0, f"{number}") for number in range(30)]
        assert -1 in answers
        assert set(answers) & set(range(30))

    run(history)


def test_the_log_refuses_what_it_is_told_to() -> None:
    async def history(world: World) -> None:
        world.broker.refuses = lambda topic, record: topic == PERMISSIONS and record.value == b"poison"
        producer = await world.producer(world.loop.process("owner"))
        assert isinstance(await world.send(producer, PERMISSIONS, 0, "good", "poison"), MessageSizeTooLargeError)
        assert await world.send(producer, PERMISSIONS, 0, "good") == 0
        assert await world.send(producer, STATES, 0, "poison") == 0
        world.broker.heal()
        assert await world.send(producer, PERMISSIONS, 0, "poison") == 1

    run(history)


# Outages.


@pytest.mark.parametrize("outage", ["of the cluster", "of one process"])
def test_an_outage_is_silence_for_readers_and_waiting_for_producers(outage: str) -> None:
    async def history(world: World) -> None:
        here, there = world.loop.process("here"), world.loop.process("there")
        producer, other = await world.producer(here), await world.producer(there)
        async with world.reader(here, {(PERMISSIONS, 0): 0}) as reader:
            assert await world.send(producer, PERMISSIONS, 0, "before") == 0
            assert values(await read_all(reader)) == ["before"]
            if outage == "of the cluster":
                world.broker.go_down(30)
            else:
                world.broker.partition_reader(here, 30)
            begun = world.loop.time()
            answer = await world.send(other, PERMISSIONS, 0, "during")
            assert (answer == 1) is (outage == "of one process")
            assert await reader.read(timeout_milliseconds=5000, records_max=10) == {}
            assert await reader.positions() == {TopicPartition(PERMISSIONS, 0): 1}
            # Without a time limit a batch waits until it is over.
            first, _ = await producer.send_batch(PERMISSIONS, 0, [Outgoing(b"key", b"after")])
            assert world.loop.time() - begun >= 30
            assert first == world.broker.bounds(PERMISSIONS, 0)[1] - 1 or outage == "of the cluster"
            assert Counter(values(await read_all(reader))) == Counter(["during", "after"])
            assert Counter(world.values(PERMISSIONS)) == Counter(["before", "during", "after"])

    run(history)


def test_a_reader_gets_after_an_outage_what_came_in_it() -> None:
    async def history(world: World) -> None:
        here = world.loop.process("here")
        async with world.reader(here, {(PERMISSIONS, 0): 0}) as reader:
            world.broker.partition_reader(here, 5)
            world.broker.append_raw(PERMISSIONS, 0, b"a", b"during")
            await asyncio.sleep(4)
            assert await reader.read(timeout_milliseconds=0, records_max=10) == {}
            # It is longer than it was meant to be.
            world.broker.go_down(5)
            assert await reader.read(timeout_milliseconds=4000, records_max=10) == {}
            assert values(await read_all(reader)) == ["during"]

    run(history)


def test_an_answer_is_lost_in_an_outage_and_the_batch_sent_again() -> None:
    async def history(world: World) -> None:
        producer = await world.producer(world.loop.process("owner"))
        world.broker.network.latency_seconds = (1.0, 1.0)
        sending = asyncio.create_task(world.send(producer, PERMISSIONS, 0, "a"))
        await asyncio.sleep(1.5)
        assert world.values(PERMISSIONS) == ["a"]
        world.broker.go_down(3)
        assert await sending == 0
        assert world.loop.time() > 5.5  # The first answer would have been there at 2.
        assert world.values(PERMISSIONS) == ["a"]

    run(history)


def test_questions_fail_in_an_outage_or_wait_for_its_end() -> None:
    async def history(world: World) -> None:
        here = world.loop.process("here")
        watch = SimulatedKafka(world.broker, here).watch(client_id="a-watch")
        async with world.reader(here, {}) as reader:
            world.broker.go_down(1000)
            with pytest.raises(KafkaError):
                await watch.look({PERMISSIONS: 1})
            with pytest.raises(KafkaTimeoutError):
                await reader.bounds([TopicPartition(PERMISSIONS, 0)])
            with pytest.raises(KafkaError):
                await world.producer(here)
            world.broker.heal()
            world.broker.go_down(10)
            assert await reader.bounds([TopicPartition(PERMISSIONS, 0)]) == {TopicPartition(PERMISSIONS, 0): (0, 0)}
            assert (await watch.look({PERMISSIONS: 1})).ends == {TopicPartition(PERMISSIONS, 0): 0}

    run(history)


def test_a_slow_network_is_slow() -> None:
    async def history(world: World) -> None:
        producer = await world.producer(world.loop.process("owner"))

        async def seconds() -> float:
            begun = world.loop.time()
            for number in range(10):
                await world.send(producer, PERMISSIONS, 0, f"{number}")
            return world.loop.time() - begun

        assert await seconds() < 0.2
        world.broker.slow(60)
        assert await seconds() > 3

    run(history)


# Readers.


def test_a_read_takes_of_several_partitions_no_more_than_was_asked_for() -> None:
    async def history(world: World) -> None:
        partitions = {(STATES, number): 0 for number in range(3)}
        async with world.reader(world.loop.process("here"), partitions) as reader:
            for _, number in partitions:
                for value in range(10):
                    world.broker.append_raw(STATES, number, b"a", f"{number}.{value}".encode())
            sizes: list[int] = []
            while sum(sizes) < 30:
                await asyncio.sleep(1)  # All there is has come.
                batches = await reader.read(timeout_milliseconds=0, records_max=4)
                sizes.append(sum(map(len, batches.values())))
            assert max(sizes) == 4

    run(history)


def test_a_frozen_reader_has_what_came_before_and_reads_on() -> None:
    async def history(world: World) -> None:
        here = world.loop.process("here")
        found: list[list[str]] = []
        async with world.reader(here, {(PERMISSIONS, 0): 0}) as reader:

            async def follow() -> None:
                while True:
                    batches = await reader.read(timeout_milliseconds=500, records_max=10)
                    found.extend(values(records) for records in batches.values())

            here.start(follow())
            await asyncio.sleep(1)
            here.freeze()
            world.broker.append_raw(PERMISSIONS, 0, b"a", b"in the socket")
            await asyncio.sleep(5)
            world.broker.append_raw(PERMISSIONS, 0, b"a", b"later")
            await asyncio.sleep(5)
            assert found == []
            here.thaw()
            await asyncio.sleep(1)
            assert found == [["in the socket"], ["later"]]
            here.kill()
            assert not world.broker._readers

    run(history)


def test_records_are_given_once_more_on_demand() -> None:
    async def history(world: World) -> None:
        here, there = world.loop.process("here"), world.loop.process("there")
        for number in range(5):
            world.broker.append_raw(PERMISSIONS, 0, b"a", f"{number}".encode())
        begin = {(PERMISSIONS, 0): 0}
        async with world.reader(here, begin) as reader, world.reader(there, begin) as other:
            assert values(await read_all(reader)) == values(await read_all(other)) == [*"01234"]
            world.broker.redeliver(here, 2)
            assert values(await read_all(reader)) == ["3", "4"]
            world.broker.redeliver(here, 50)
            assert values(await read_all(reader)) == [*"01234"]
            assert await read_all(other) == []

    run(history)


# The log.


def test_compaction_keeps_the_highest_offset_of_each_key_and_all_that_is_young() -> None:
    async def history(world: World) -> None:
        broker = world.broker
        for key, value in ("a1", "b1", "a2", "a3", "b2"):
            broker.append_raw(PERMISSIONS, 0, key.encode(), f"{key}{value}".encode())
        await asyncio.sleep(HOUR_SECONDS - 10)
        broker.compact(PERMISSIONS)
        assert world.values(PERMISSIONS) == ["a1", "b1", "a2", "a3", "b2"]
        broker.append_raw(PERMISSIONS, 0, b"a", b"a4")
        await asyncio.sleep(20)
        broker.compact(PERMISSIONS)
        # What is older than the topic's lag is compacted as if nothing came after it.
        assert world.values(PERMISSIONS) == ["a3", "b2", "a4"]
        assert broker.bounds(PERMISSIONS, 0) == (0, 6)
        assert [record.offset for record in broker.records(PERMISSIONS)] == [3, 4, 5]
        broker.compact(PERMISSIONS, lag_seconds=0, lag_records=1)
        assert world.values(PERMISSIONS) == ["a3", "b2", "a4"]
        broker.compact(PERMISSIONS, lag_seconds=0)
        assert world.values(PERMISSIONS) == ["b2", "a4"]
        async with world.reader(world.loop.process("here"), {(PERMISSIONS, 0): 1}) as reader:
            assert [record.offset for record in await read_all(reader)] == [4, 5]
            assert await reader.positions() == {TopicPartition(PERMISSIONS, 0): 6}

    run(history)


def test_a_collected_tombstone_leaves_a_gap_over_which_the_position_moves() -> None:
    async def history(world: World) -> None:
        broker = world.broker
        broker.append_raw(PERMISSIONS, 0, b"a", b"a1")
        broker.append_raw(PERMISSIONS, 0, b"b", b"b1")
        broker.append_raw(PERMISSIONS, 0, b"a", None)
        await asyncio.sleep(2 * HOUR_SECONDS)
        broker.compact(PERMISSIONS)
        assert [record.value for record in broker.records(PERMISSIONS)] == [b"b1", None]
        await asyncio.sleep(7 * 24 * HOUR_SECONDS)
        broker.compact(PERMISSIONS)
        assert [record.value for record in broker.records(PERMISSIONS)] == [b"b1"]
        assert broker.bounds(PERMISSIONS, 0) == (0, 3)
        async with world.reader(world.loop.process("here"), {(PERMISSIONS, 0): 2}) as reader:
            assert await read_all(reader) == []
            assert await reader.positions() == {TopicPartition(PERMISSIONS, 0): 3}
            assert broker.append_raw(PERMISSIONS, 0, b"a", b"a2") == 3
            assert values(await read_all(reader)) == ["a2"]

    run(history)


def test_the_final_compaction_leaves_one_record_of_each_key() -> None:
    async def history(world: World) -> None:
        for number in range(20):
            world.broker.append_raw(STATES, number % 2, f"key {number % 4}".encode(), f"{number}".encode())
            world.broker.append_raw(HEARTBEATS, 0, b"auth", f"{number}".encode())
        world.broker.final_compaction()
        assert world.values(STATES, 0) == ["16", "18"]
        assert world.values(STATES, 1) == ["17", "19"]
        assert len(world.values(HEARTBEATS)) == 20

    run(history)


def test_heartbeats_are_collected_after_an_hour_and_the_log_begins_later() -> None:
    async def history(world: World) -> None:
        for number in range(10):
            world.broker.append_raw(HEARTBEATS, 0, b"auth", f"{number}".encode())
            world.broker.append_raw(PERMISSIONS, 0, b"module", f"{number}".encode())
            await asyncio.sleep(HOUR_SECONDS / 6)
        async with world.reader(world.loop.process("here"), {(HEARTBEATS, 0): 1}) as reader:
            await reader.read(timeout_milliseconds=100, records_max=1)
            world.broker.collect_heartbeats()
            assert world.broker.bounds(HEARTBEATS, 0) == (5, 10)
            assert world.values(HEARTBEATS) == [*"56789"]
            assert len(world.values(PERMISSIONS)) == 10
            await asyncio.sleep(2 * HOUR_SECONDS)
            world.broker.collect_heartbeats()
            assert world.broker.bounds(HEARTBEATS, 0) == (10, 10)

    run(history)


def test_a_lost_tail_is_given_out_again_and_not_known_any_more() -> None:
    async def history(world: World) -> None:
        broker = world.broker
        producer = await world.producer(world.loop.process("owner"))
        for number in range(4):
            await world.send(producer, PERMISSIONS, 0, f"{number}")
        async with world.reader(world.loop.process("here"), {(PERMISSIONS, 0): 0}) as reader:
            assert len(await read_all(reader)) == 4
            broker.lose_tail(PERMISSIONS, 0, 2)
            assert broker.bounds(PERMISSIONS, 0) == (0, 2)
            with pytest.raises(OffsetOutOfRangeError):
                await read_all(reader)
            # A reader that is asked again only after the log has grown over its position misses what came.
            another = await world.producer(world.loop.process("another owner"))
            assert [await world.send(another, PERMISSIONS, 0, f"new {number}") for number in range(3)] == [2, 3, 4]
            assert world.values(PERMISSIONS) == ["0", "1", "new 0", "new 1", "new 2"]
            assert values(await read_all(reader))[-1] == "new 2"
        broker.lose_tail(PERMISSIONS, 0, 50)
        assert broker.bounds(PERMISSIONS, 0) == (0, 0)

    run(history)


def test_a_producer_of_which_a_batch_was_lost_is_out_of_sequence() -> None:
    async def history(world: World) -> None:
        producer = await world.producer(world.loop.process("owner"))
        world.broker.network.latency_seconds = (1.0, 1.0)
        sending = asyncio.create_task(world.send(producer, PERMISSIONS, 0, "a"))
        await asyncio.sleep(1.5)
        world.broker.go_down(1)
        world.broker.lose_tail(PERMISSIONS, 0, 1)
        assert isinstance(await sending, OutOfOrderSequenceNumber)
        assert world.values(PERMISSIONS) == []

    run(history)


def test_a_topic_made_again_is_another_and_producers_go_on() -> None:
    async def history(world: World) -> None:
        before = world.broker.topic_id(PERMISSIONS)
        producer = await world.producer(world.loop.process("owner"))
        assert await world.send(producer, PERMISSIONS, 0, "old") == 0
        world.broker.recreate(PERMISSIONS)
        assert world.broker.topic_id(PERMISSIONS) != before
        assert world.values(PERMISSIONS) == []
        assert await world.send(producer, PERMISSIONS, 0, "new") == 0

    run(history)


def test_a_record_can_be_put_behind_newer_ones() -> None:
    async def history(world: World) -> None:
        for value in ("old", "new"):
            world.broker.append_raw(PERMISSIONS, 0, b"a", value.encode(), (("type", b"x"),))
        assert world.broker.duplicate(PERMISSIONS, 0, 0) == 2
        (old, _, again) = world.broker.records(PERMISSIONS)
        assert (again.key, again.value, again.headers) == (old.key, old.value, old.headers)
        with pytest.raises(LookupError):
            world.broker.duplicate(PERMISSIONS, 0, 7)

    run(history)
