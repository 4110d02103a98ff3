"""What the access path may rely on from Kafka: one suite for the real clients and the simulated ones.

What only the simulated cluster can be made to do is in tests/simulation/test_kafka.py.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from random import Random
from typing import Any, Final, Protocol

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
)
from confluent_kafka import TopicPartition as AskedPartition
from confluent_kafka.admin import AdminClient

from contracts.topics import TOPICS, wire_name
from infra.kafka.bootstrap import bootstrap
from infra.kafka.clients import Kafka, KafkaClients, Outgoing, Record, RecordProducer, RecordReader, stop_reader
from infra.kafka.connection import KafkaConnection
from tests.harness.runtime import Runtime
from tests.simulation.kafka import SimulatedBroker, SimulatedKafka
from tests.simulation.loop import SimulatedLoop

_BY_NAME: Final = {topic.name: topic for topic in TOPICS}
MEMBERSHIPS: Final = _BY_NAME["auth.memberships.v1"]
PERMISSIONS: Final = _BY_NAME["auth.permissions.v1"]
#: Not compacted: records can be removed from its beginning.
PURCHASES: Final = _BY_NAME["checkout.purchases.v1"]
_TOPIC_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_SEEDS: Final = range(10)
_BATCH_BYTES: Final = 16_000
_PATIENCE_SECONDS: Final = 20.0


class Cluster(Protocol):
    """One of both: clients, clients that reach nobody, and what an administrator does."""

    @property
    def kafka(self) -> Kafka: ...

    @property
    def unreachable(self) -> Kafka: ...

    async def recreate(self, topic: str) -> None: ...

    async def trim(self, topic: str, partition: int, begin: int) -> None: ...


class _RealCluster:
    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._admin = AdminClient(connection.confluent())
        self.kafka = KafkaClients(connection)
        self.unreachable = KafkaClients(
            KafkaConnection(bootstrap_servers="127.0.0.1:1", username=connection.username, password=connection.password)
        )

    async def recreate(self, topic: str) -> None:
        for answer in self._admin.delete_topics([wire_name(self._connection.topic_prefix, topic)]).values():
            await asyncio.to_thread(answer.result)
        await asyncio.to_thread(bootstrap, self._connection, [_BY_NAME[topic]], {})

    async def trim(self, topic: str, partition: int, begin: int) -> None:
        asked = AskedPartition(wire_name(self._connection.topic_prefix, topic), partition, begin)
        for answer in self._admin.delete_records([asked]).values():
            await asyncio.to_thread(answer.result)


class _SimulatedCluster:
    def __init__(self, loop: SimulatedLoop, random: Random) -> None:
        self._broker = SimulatedBroker(loop, random, topic_prefix="simulated.")
        self.kafka = SimulatedKafka(self._broker, loop.process("here"))
        cut_off = loop.process("cut off")
        self._broker.partition_reader(cut_off, 1e6)
        self.unreachable = SimulatedKafka(self._broker, cut_off)

    async def recreate(self, topic: str) -> None:
        self._broker.recreate(topic)

    async def trim(self, topic: str, partition: int, begin: int) -> None:
        self._broker.trim(topic, partition, begin)


Check = Callable[[Cluster], Awaitable[None]]
Run = Callable[[Check], None]


@pytest.fixture(params=["real", "simulated"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a check on one cluster of each kind; on several simulated ones, since chance has a part in those."""
    if request.param == "simulated":
        return _run_simulated
    runtime: Runtime = request.getfixturevalue("runtime")
    connection = runtime.administrator(f"{runtime.new_prefix()}.")

    async def run_real(check: Check) -> None:
        await asyncio.to_thread(bootstrap, connection, [MEMBERSHIPS, PERMISSIONS, PURCHASES], {})
        await check(_RealCluster(connection))

    return lambda check: asyncio.run(run_real(check))


def _run_simulated(check: Check) -> None:
    for seed in _SEEDS:
        random = Random(seed)  # noqa: S311  latencies, no secrets
        with closing(SimulatedLoop(random)) as loop:
            cluster = _SimulatedCluster(loop, random)
            loop.run_until_complete(_awaited(check(cluster)))
            assert loop.exceptions == []


async def _awaited(check: Awaitable[None]) -> None:
    await check


@asynccontextmanager
async def _producer(kafka: Kafka) -> AsyncIterator[RecordProducer]:
    producer = kafka.producer(client_id="a-producer", batch_size_max_bytes=_BATCH_BYTES)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.give_up()


@asynccontextmanager
async def _reader(kafka: Kafka, *topics: str, offset: int = 0) -> AsyncIterator[RecordReader]:
    """At an offset of every partition of the topics, which are all that is asked for."""
    reader = kafka.reader(client_id="a-reader", wait_max_milliseconds=500, partition_fetch_max_bytes=1024 * 1024)
    await reader.start()
    try:
        reader.assign(
            {
                _partition(kafka, topic, number): offset
                for topic in topics
                for number in range(_BY_NAME[topic].partitions)
            }
        )
        yield reader
    finally:
        await reader.stop()


def _partition(kafka: Kafka, topic: str, number: int = 0) -> TopicPartition:
    return TopicPartition(wire_name(kafka.topic_prefix, topic), number)


def _outgoing(*values: str) -> list[Outgoing]:
    return [Outgoing(f"key {value[:8]}".encode(), value.encode()) for value in values]


async def _read(reader: RecordReader, count: int) -> list[Record]:
    """So many records, as they come."""
    found: list[Record] = []
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while len(found) < count:
            for records in (await reader.read(timeout_milliseconds=200, records_max=1000)).values():
                found += records
    return found


async def _send(kafka: Kafka, topic: str, partition: int, records: Sequence[Outgoing]) -> tuple[int, int]:
    async with _producer(kafka) as producer:
        return await producer.send_batch(wire_name(kafka.topic_prefix, topic), partition, records)


def _values(records: Sequence[Record]) -> list[str]:
    return [(record.value or b"").decode() for record in records]


def test_a_partition_keeps_the_order_it_was_sent_in(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        topic = wire_name(cluster.kafka.topic_prefix, MEMBERSHIPS.name)
        async with _producer(cluster.kafka) as producer, _reader(cluster.kafka, MEMBERSHIPS.name) as reader:
            answers = await asyncio.gather(
                *(
                    producer.send_batch(topic, partition, _outgoing(f"{partition}.{batch}.a", f"{partition}.{batch}.b"))
                    for batch in range(5)
                    for partition in range(2)
                )
            )
            assert answers == [(2 * batch, 2) for batch in range(5) for _ in range(2)]
            records = await _read(reader, 20)
        for partition in range(2):
            found = [record for record in records if record.partition == partition]
            assert _values(found) == [f"{partition}.{batch}.{part}" for batch in range(5) for part in "ab"]
            assert [record.offset for record in found] == list(range(10))
            assert {record.topic for record in found} == {topic}

    run(check)


def test_a_batch_takes_what_it_holds(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        topic = wire_name(cluster.kafka.topic_prefix, PERMISSIONS.name)
        rows = _outgoing(*(f"{number}" * 3000 for number in range(9)))
        async with _producer(cluster.kafka) as producer:
            first, count = await producer.send_batch(topic, 0, rows)
            assert (first, count) == (0, 5)
            assert await producer.send_batch(topic, 0, rows[count:]) == (5, 4)
            # A record that is larger than a batch goes alone.
            large = _outgoing("x" * (_BATCH_BYTES + 1), "small")
            assert await producer.send_batch(topic, 0, large) == (9, 1)

    run(check)


def test_what_is_too_large_is_refused_and_nothing_of_its_batch_is_there(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        topic = wire_name(cluster.kafka.topic_prefix, PERMISSIONS.name)
        async with _producer(cluster.kafka) as producer, _reader(cluster.kafka, PERMISSIONS.name) as reader:
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_batch(topic, 0, _outgoing("x" * 2_000_000))
            assert await producer.send_batch(topic, 0, _outgoing("small")) == (0, 1)
            assert _values(await _read(reader, 1)) == ["small"]

    run(check)


def test_producers_and_readers_know_how_many_partitions_there_are(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        known = [wire_name(cluster.kafka.topic_prefix, topic.name) for topic in (MEMBERSHIPS, PERMISSIONS)]
        async with _producer(cluster.kafka) as producer, _reader(cluster.kafka) as reader:
            assert [await producer.partition_count(topic) for topic in known] == [6, 1]
            missing = f"{known[0]}.missing"
            assert await reader.partition_counts([*known, missing]) == {known[0]: 6, known[1]: 1, missing: 0}

    run(check)


def test_tombstones_and_headers_arrive_as_they_were_sent(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        sent = [
            Outgoing(b"a", b"", (("type", b"auth.grant-changed.v1"), ("traceparent", b"00-1"))),
            Outgoing(b"\xff\x00", None),
        ]
        assert await _send(cluster.kafka, PERMISSIONS.name, 0, sent) == (0, 2)
        async with _reader(cluster.kafka, PERMISSIONS.name) as reader:
            records: list[Any] = await _read(reader, 2)
        assert [(record.key, record.value, record.headers) for record in records] == [
            (each.key, each.value, each.headers) for each in sent
        ]

    run(check)


def test_a_read_brings_no_more_than_was_asked_for(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        kafka = cluster.kafka
        for partition in range(3):
            await _send(kafka, MEMBERSHIPS.name, partition, _outgoing(*(f"{partition}.{n}" for n in range(10))))
        found: list[Record] = []
        async with _reader(kafka, MEMBERSHIPS.name) as reader:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while len(found) < 30:
                    batches = await reader.read(timeout_milliseconds=500, records_max=4)
                    assert sum(map(len, batches.values())) <= 4
                    for partition, records in batches.items():
                        found += records
                        # The position is behind what was given out, not behind what was fetched.
                        assert (await reader.positions())[partition] == records[-1].offset + 1
            assert await reader.read(timeout_milliseconds=50, records_max=4) == {}
            assert [(await reader.positions())[_partition(kafka, MEMBERSHIPS.name, n)] for n in range(6)] == [
                *(10, 10, 10),
                *(0, 0, 0),
            ]
        assert Counter(_values(found)) == Counter(f"{partition}.{n}" for partition in range(3) for n in range(10))

    run(check)


def test_a_read_waits_for_records(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        loop = asyncio.get_running_loop()
        async with _producer(cluster.kafka) as producer, _reader(cluster.kafka, PERMISSIONS.name) as reader:
            begun = loop.time()
            assert await reader.read(timeout_milliseconds=300, records_max=10) == {}
            assert 0.29 < loop.time() - begun < 5
            assert await reader.read(timeout_milliseconds=0, records_max=10) == {}
            begun = loop.time()
            reading = asyncio.create_task(reader.read(timeout_milliseconds=60_000, records_max=10))
            await producer.send_batch(wire_name(cluster.kafka.topic_prefix, PERMISSIONS.name), 0, _outgoing("a"))
            (records,) = (await reading).values()
            assert _values(records) == ["a"]
            assert loop.time() - begun < 30

    run(check)


def test_a_sought_offset_is_read_next(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        await _send(cluster.kafka, PERMISSIONS.name, 0, _outgoing(*"abcde"))
        partition = _partition(cluster.kafka, PERMISSIONS.name)
        async with _reader(cluster.kafka, PERMISSIONS.name) as reader:
            assert _values(await _read(reader, 5)) == [*"abcde"]
            reader.seek(partition, 3)
            assert await reader.positions() == {partition: 3}
            assert _values(await _read(reader, 2)) == ["d", "e"]
            # Also while something else is on its way.
            reader.seek(partition, 0)
            reader.seek(partition, 4)
            assert _values(await _read(reader, 1)) == ["e"]
        async with _reader(cluster.kafka, PERMISSIONS.name, offset=2) as reader:
            assert _values(await _read(reader, 3)) == [*"cde"]

    run(check)


def test_an_offset_the_log_does_not_hold_is_told_with_its_partition(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        kafka = cluster.kafka
        await _send(kafka, PURCHASES.name, 0, _outgoing(*"abcde"))
        await _send(kafka, PURCHASES.name, 1, _outgoing("other"))
        await cluster.trim(PURCHASES.name, 0, 3)
        first, other = (_partition(kafka, PURCHASES.name, number) for number in range(2))
        async with _reader(kafka) as reader:
            assert await reader.bounds([first, other]) == {first: (3, 5), other: (0, 1)}
            for outside in (2, 6):
                reader.assign({first: outside, other: 0})
                # The other partition is read all the same, and it goes on until the reader is sought elsewhere.
                seen = [await _told(reader) for _ in range(2)]
                assert seen == [{first: outside}] * 2
                reader.seek(first, 4)
                found: list[str] = []
                while "e" not in found:
                    found += _values(await _read(reader, 1))
            reader.assign({first: 5})
            assert await reader.read(timeout_milliseconds=100, records_max=10) == {}

    run(check)


async def _told(reader: RecordReader) -> object:
    """What is said where the log ends before the position."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            try:
                await reader.read(timeout_milliseconds=200, records_max=10)
            except OffsetOutOfRangeError as error:
                return error.args[0]


def test_a_topic_made_again_has_another_id_and_is_read_on_by_its_name(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        kafka = cluster.kafka
        watch = kafka.watch(client_id="a-watch")
        topic = wire_name(kafka.topic_prefix, PERMISSIONS.name)
        await _send(kafka, PERMISSIONS.name, 0, _outgoing("a", "b"))
        before = await watch.look({topic: 1})
        assert before.ends == {TopicPartition(topic, 0): 2}
        async with _reader(kafka, PERMISSIONS.name) as reader:
            await _read(reader, 2)
            await cluster.recreate(PERMISSIONS.name)
            after = await watch.look({topic: 1})
            assert after.topic_ids != before.topic_ids
            assert after.ends == {TopicPartition(topic, 0): 0}
            assert _TOPIC_ID.fullmatch(after.topic_ids[topic])
            # From the old offset on, without a word.
            assert await _send(kafka, PERMISSIONS.name, 0, _outgoing("new 0", "new 1", "new 2")) == (0, 3)
            assert _values(await _read_or_seek(reader, TopicPartition(topic, 0), 2)) == ["new 2"]

    run(check)


async def _read_or_seek(reader: RecordReader, partition: TopicPartition, offset: int) -> list[Record]:
    """One record from the offset on; a log that did not hold it yet when it was asked is asked again."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            try:
                found = await reader.read(timeout_milliseconds=200, records_max=10)
            except OffsetOutOfRangeError:
                reader.seek(partition, offset)
                continue
            if found:
                return list(found[partition])


def test_the_watch_sees_ids_and_ends(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        kafka = cluster.kafka
        watch = kafka.watch(client_id="a-watch")
        names = {wire_name(kafka.topic_prefix, topic.name): topic.partitions for topic in (MEMBERSHIPS, PERMISSIONS)}
        await _send(kafka, MEMBERSHIPS.name, 2, _outgoing("a", "b"))
        seen = await watch.look(names)
        assert set(seen.topic_ids) == set(names)
        assert len(set(seen.topic_ids.values())) == 2
        assert all(_TOPIC_ID.fullmatch(topic_id) for topic_id in seen.topic_ids.values())
        assert seen.ends == {
            _partition(kafka, topic.name, number): 2 if (topic, number) == (MEMBERSHIPS, 2) else 0
            for topic in (MEMBERSHIPS, PERMISSIONS)
            for number in range(topic.partitions)
        }
        assert (await watch.look(names)).topic_ids == seen.topic_ids
        with pytest.raises(KafkaError):
            await watch.look({f"{kafka.topic_prefix}missing": 1})

    run(check)


def test_who_reaches_nobody_is_told_at_the_start(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        kafka = cluster.unreachable
        producer = kafka.producer(client_id="a-producer", batch_size_max_bytes=_BATCH_BYTES)
        with pytest.raises(KafkaConnectionError):
            await producer.start()
        await producer.give_up()
        reader = kafka.reader(client_id="a-reader", wait_max_milliseconds=500, partition_fetch_max_bytes=1024)
        with pytest.raises(KafkaConnectionError):
            await reader.start()
        await reader.stop()
        with pytest.raises(KafkaError):
            await kafka.watch(client_id="a-watch").look({"any": 1})

    run(check)


def test_a_stopped_reader_reads_no_more(run: Run) -> None:
    async def check(cluster: Cluster) -> None:
        async with _reader(cluster.kafka, PERMISSIONS.name) as reader:
            reading = asyncio.create_task(reader.read(timeout_milliseconds=60_000, records_max=10))
            await asyncio.sleep(0)  # Until it waits.
            await reader.stop()
            assert await reading == {}
            with pytest.raises(ConsumerStoppedError):
                await reader.read(timeout_milliseconds=10, records_max=10)

    run(check)


async def test_who_stops_a_reader_that_pauses_after_a_failed_fetch_goes_on(runtime: Runtime) -> None:
    """aiokafka passes the cancellation of such a fetch on to whoever stops the consumer, and closes no connection."""
    connection = runtime.administrator(f"{runtime.new_prefix()}.")
    await asyncio.to_thread(bootstrap, connection, [PERMISSIONS], {})
    kafka = KafkaClients(connection)
    reader = kafka.reader(client_id="a-reader", wait_max_milliseconds=50, partition_fetch_max_bytes=1024)
    await reader.start()
    consumer = reader._consumer  # type: ignore[attr-defined]
    failed = asyncio.Event()

    async def fail(*_: object) -> None:
        failed.set()
        raise KafkaConnectionError

    consumer._client.send = fail
    consumer._fetcher._retry_backoff = _PATIENCE_SECONDS
    reader.assign({_partition(kafka, PERMISSIONS.name): 0})
    await asyncio.wait_for(failed.wait(), _PATIENCE_SECONDS)
    await asyncio.sleep(0)
    connections = list(consumer._client._conns.values())
    assert connections
    await stop_reader(reader)
    assert not any(each.connected() for each in connections)
