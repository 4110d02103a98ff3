"""What is written arrives, in order; an error, a row that is refused or an absent Kafka loses nothing."""

import asyncio
import json
import random
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from aiokafka.partitioner import murmur2
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not mark what it exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from contracts.identifiers import CompanyId, new_id
from contracts.topics import wire_name
from infra.inbox import add_inbox_table
from infra.kafka.clients import KafkaClients
from infra.kafka.partitioner import partition_of as partition_of_key
from infra.kafka.partitioner import partitions_of
from infra.outbox.relay import IncompleteRelayError
from infra.outbox.store import _READ_STATES, _SETTLE, OutboxStore
from infra.outbox.tables import add_outbox_tables
from infra.outbox.writer import Lane
from services.auth.database import Base
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import (
    COMPANY,
    MEMBERSHIPS,
    SUBSCRIPTIONS,
    Owner,
    drained,
    grant,
    heartbeats,
    key_of,
    publish_grant,
    publish_trial,
    running,
)


def partition_of(number: int) -> int:
    return partition_of_key(key_of(number).encode(), MEMBERSHIPS.partitions)


async def test_what_is_committed_is_published_and_deleted_and_what_is_not_is_not(owner: Owner) -> None:
    async with running(owner.relay()) as relay:
        async with owner.database.unit_of_work() as work:
            await owner.write_in(work, 2)
            await work.rollback()
        revision = await owner.write(1)
        await drained(owner)
        assert relay.leads
        await wait_until(lambda: asyncio.sleep(0, relay.backlog.depth), lambda n: n == 0, describe="it says so")
    assert str(revision) == f"auth.memberships.v1:{key_of(1)}:1:1"
    (record,) = await owner.log_of(MEMBERSHIPS.name)
    assert (record.key.decode(), record.headers) == (key_of(1), (("type", b"auth.grant-changed.v1"),))
    (publisher,) = await owner.rows("select publish_counter from outbox_publisher")
    assert publisher["publish_counter"] == 1


async def test_a_key_has_one_pending_row_with_the_newest_state_and_the_more_urgent_lane(owner: Owner) -> None:
    await owner.write(1)
    await owner.write(1, "suspended", lane=Lane.BULK)
    await owner.write(2, lane=Lane.BULK)
    await owner.write(2, "removed")
    rows = await owner.rows("select key, version, lane from outbox_states order by key")
    assert [tuple(row) for row in rows] == [(key_of(1), 2, 0), (key_of(2), 2, 0)]


async def test_of_concurrent_writers_the_newest_version_stays(owner: Owner) -> None:
    async def publish(version: int) -> None:
        async with owner.database.unit_of_work() as work:
            await publish_grant(work, 1, version)

    versions = list(range(1, 41))
    random.Random(4).shuffle(versions)  # noqa: S311 - an order, not a secret
    await asyncio.gather(*(publish(version) for version in versions))
    rows = await owner.rows("select version, value from outbox_states")
    assert [row["version"] for row in rows] == [40]
    assert json.loads(rows[0]["value"])["version"] == 40


async def test_under_concurrent_writers_the_log_ends_with_each_keys_newest_state(owner: Owner) -> None:
    async with running(owner.relay()):
        await asyncio.gather(*(owner.write(number % 7) for number in range(140)))
        await drained(owner)
    assert {key: version for key, (version, _) in (await owner.last_states()).items()} == {
        key_of(number): 20 for number in range(7)
    }
    for number in range(7):
        versions = [version for version, _ in await owner.history(number)]
        assert versions == sorted(set(versions))


async def test_interactive_goes_before_bulk(owner: Owner) -> None:
    for number in range(60):
        await owner.write(number, lane=Lane.BULK)
    for number in range(100, 130):
        await owner.write(number)
    async with running(owner.relay()):
        await drained(owner)
    urgent = {key_of(number) for number in range(100, 130)}
    by_partition: dict[int, list[bool]] = {}
    for record in await owner.log_of(MEMBERSHIPS.name):
        by_partition.setdefault(record.partition, []).append(record.key.decode() in urgent)
    assert all(order == sorted(order, reverse=True) for order in by_partition.values())
    assert sum(map(sum, by_partition.values())) == 30


async def test_a_writer_that_holds_a_pending_row_stops_nobody_and_its_state_is_sent_once(owner: Owner) -> None:
    await owner.write(1)
    async with owner.database.unit_of_work() as work:
        await owner.write_in(work, 1, "removed")
        async with running(owner.relay()) as relay:
            await owner.write(2)
            await wait_until(owner.pending, lambda n: n == 1, describe="the other key is published")
            beats = len(await heartbeats(owner))
            await wait_until(lambda: heartbeats(owner), lambda h: len(h) >= beats + 2, describe="heartbeats go on")
            await work.commit()
            await drained(owner)
            assert relay.leads
    assert await owner.history(1) == [(1, "active"), (2, "removed")]


async def test_facts_of_a_key_keep_their_order(owner: Owner) -> None:
    companies = [CompanyId(new_id()) for _ in range(3)]
    sent: dict[str, list[str]] = {str(company): [] for company in companies}
    for version in range(1, 41):
        async with owner.database.unit_of_work() as work:
            company = companies[version % 3]
            sent[str(company)].append(str(await publish_trial(work, company, version)))
    relay = owner.relay(kafka=KafkaClients(owner.admin), topics=(SUBSCRIPTIONS,), sources={})
    async with running(relay):
        await drained(owner)
    found: dict[str, list[str]] = {key: [] for key in sent}
    for record in await owner.log_of(SUBSCRIPTIONS.name):
        found[record.key.decode()].append(json.loads(record.value)["event_id"])
    assert found == sent


async def limit_records(owner: Owner, size_bytes: int) -> None:
    name = wire_name(owner.admin.topic_prefix, MEMBERSHIPS.name)
    entry = ConfigEntry("max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET)
    admin = AdminClient(owner.admin.confluent())
    for answer in admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])]
    ).values():
        await asyncio.to_thread(answer.result)


async def test_a_row_the_log_refuses_is_set_aside_its_key_unknown_and_the_others_go_on(owner: Owner) -> None:
    others = [number for number in range(2, 60) if partition_of(number) == partition_of(1)]
    await limit_records(owner, 8_000)
    for number in others[:4]:
        await owner.write(number)
    await owner.write(1, bytes_more=20_000)
    for number in others[4:]:
        await owner.write(number)
    async with running(owner.relay()) as relay:
        await drained(owner)
        await wait_until(lambda: asyncio.sleep(0, relay.backlog.refused), lambda n: n == 1, describe="it is told")
        assert await owner.history(1) == [(1, "unknown")]
        beats = len(await heartbeats(owner))
        await wait_until(lambda: heartbeats(owner), lambda h: len(h) > beats, describe="heartbeats go on")
        (row,) = await owner.rows("select key, version, refusal from outbox_states")
        assert (row["key"], row["version"]) == (key_of(1), 1)
        assert row["refusal"].startswith("MessageSizeTooLargeError")
        await owner.write(1, "removed")
        await wait_until(lambda: owner.history(1), lambda h: h[-1] == (2, "removed"), describe="a newer one lifts it")
    assert set(await owner.last_states()) == {key_of(number) for number in (1, *others)}
    assert await owner.rows("select * from outbox_states") == []


async def test_while_kafka_is_away_writers_go_on_and_all_is_published_after(owner: Owner) -> None:
    sockets: set[asyncio.StreamWriter] = set()
    host, _, port = owner.kafka.bootstrap_servers.partition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            return
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        sockets.update((writer, back))
        await asyncio.gather(forward(reader, back), forward(there, writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxied = proxy.sockets[0].getsockname()[1]
    proxy.close()
    await proxy.wait_closed()
    relay = owner.relay(kafka=KafkaClients(replace(owner.kafka, bootstrap_servers=f"127.0.0.1:{proxied}")))
    async with running(relay):
        for number in range(50):
            await owner.write(number)
        await wait_until(lambda: asyncio.sleep(0, relay.backlog.depth), lambda n: n == 50, describe="it is told")
        assert relay.oldest_pending_age.total_seconds() > 0
        assert await owner.log_of(MEMBERSHIPS.name) == []
        proxy = await asyncio.start_server(serve, "127.0.0.1", proxied)
        try:
            await drained(owner)
        finally:
            proxy.close()
            for socket in sockets:
                socket.close()
    assert len(await owner.last_states()) == 50


async def test_a_backlog_is_read_and_settled_by_index_though_the_outbox_was_empty_when_it_was_vacuumed(
    owner: Owner,
) -> None:
    connection = await asyncpg.connect(owner.owner_url)
    await connection.execute("vacuum analyze outbox_states")
    await connection.close()
    async with owner.database.unit_of_work() as work:
        for number in range(50):
            await owner.write_in(work, number)
    store = await OutboxStore.open(owner.url)
    try:
        asked = {_READ_STATES: (0, 10, 0), _SETTLE: (["a"], ["b"], "{1}", "{1}", "{}", 1, [], [], [], [], [])}
        for statement, arguments in asked.items():
            prepared = await store._connection.prepare(statement)
            plan = json.dumps(await prepared.explain(*arguments))
            assert "outbox_states_p" in plan
            assert '"Sort"' not in plan
            assert '"Seq Scan", "Parallel Aware": false, "Async Capable": false, "Relation Name": "outbox_s' not in plan
    finally:
        store.terminate()


async def test_a_heartbeat_is_never_ahead_of_what_was_committed_before_it(owner: Owner) -> None:
    committed: dict[str, Any] = {}
    async with running(owner.relay()):
        async with owner.database.unit_of_work() as open_one:
            await owner.write_in(open_one, 1000)
            for number in range(150):
                await owner.write(number)
                (row,) = await owner.rows("select clock_timestamp() as at")
                committed[key_of(number)] = row["at"]
            await wait_until(lambda: heartbeats(owner), lambda h: len(h) >= 2, describe="an open one holds up none")
            await open_one.commit()
            (row,) = await owner.rows("select clock_timestamp() as at")
            committed[key_of(1000)] = row["at"]
        count = len(await heartbeats(owner))
        sent = await wait_until(lambda: heartbeats(owner), lambda h: len(h) >= count + 2, describe="two more")
    places = {record.key.decode(): (record.partition, record.offset) for record in await owner.log_of(MEMBERSHIPS.name)}
    assert sent[-1].as_of > committed[key_of(1000)]
    for heartbeat in sent:
        ends = {position.partition: position.next_offset for position in heartbeat.positions}
        assert set(ends) == set(range(MEMBERSHIPS.partitions))
        for key, at in committed.items():
            if at <= heartbeat.as_of:
                partition, offset = places[key]
                assert offset < ends[partition]
    assert [one.as_of for one in sent] == sorted(one.as_of for one in sent)
    assert sent[-1].publish_counter == 151
    assert sent[-1].epoch_complete


def test_records_are_where_kafkas_own_clients_put_them() -> None:
    assert partition_of_key(b"foobar", 2**31) == -790332482 & 0x7FFFFFFF  # from Kafka's own tests
    drawn = random.Random(2)  # noqa: S311 - keys, not secrets
    for length in [*range(90)] * 5:
        key = drawn.randbytes(length)
        assert partition_of_key(key, 6) == (murmur2(key) & 0x7FFFFFFF) % 6
        keys = [key, *(drawn.randbytes(length) for _ in range(30))]
        for together in (keys, keys[:3], [*keys, b"of another length"]):
            assert list(partitions_of(together, 6)) == [partition_of_key(each, 6) for each in together]


async def test_a_service_that_cannot_publish_again_does_not_start(owner: Owner) -> None:
    with pytest.raises(IncompleteRelayError, match=r"auth\.memberships\.v1"):
        owner.relay(sources={})


async def test_a_topic_takes_what_it_carries(owner: Owner) -> None:
    async with owner.database.unit_of_work() as work:
        with pytest.raises(ValueError, match="carries states"):
            await publish_fact_of(work)


async def publish_fact_of(work: Any) -> None:
    from infra.outbox.writer import publish_fact
    from tests.integration.outbox.parts import NOW

    await publish_fact(work, MEMBERSHIPS, grant(1), company_id=COMPANY, version=1, occurred_at=NOW)


async def test_a_services_metadata_is_what_the_migration_makes(owner: Owner) -> None:
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    add_outbox_tables(metadata)
    add_inbox_table(metadata)
    engine = create_async_engine(owner.owner_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    await engine.dispose()
    assert [difference for difference in differences if difference[1].name != "members"] == []
