"""A database that is not the one that published before publishes nothing until an operator says it is the truth."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.kafka.clients import KafkaClients
from infra.kafka.partitioner import partition_of
from infra.outbox.relay import Relay
from infra.outbox.survey import Partition, read_through
from tests.harness.waiting import wait_until
from tests.integration.access.faulty import FaultyKafka
from tests.integration.outbox.parts import (
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
)
from tests.integration.outbox.reader import Reader
from tests.integration.outbox.test_lost_logs import held

ROOT = Path(__file__).parents[3]


async def refused(relay: Relay) -> str:
    found = await wait_until(lambda: asyncio.sleep(0, relay.refusal), bool, describe="it refuses")
    return found or ""


async def waits(relay: Relay, depth: int) -> None:
    await wait_until(lambda: asyncio.sleep(0, relay.backlog.depth), lambda n: n == depth, describe="it waits")


async def ask(owner: Owner) -> None:
    await owner.rows("insert into outbox_restores default values")


async def finished(owner: Owner) -> None:
    await wait_until(
        lambda: owner.rows("select from outbox_restores where finished_at is null"),
        lambda rows: rows == [],
        describe="the restore is finished",
    )
    await wait_until(
        lambda: beats(owner), lambda all_: bool(all_) and all_[-1].data.epoch_complete, describe="its heartbeat"
    )


async def later_epoch(owner: Owner, before: int) -> None:
    await wait_until(lambda: beats(owner), lambda all_: all_[-1].epoch > before, describe="another epoch began")


async def published(owner: Owner) -> None:
    """Ten members, put back to before all of them were removed and five more came."""
    for number in range(10):
        await owner.write(number)
    async with running(owner.relay()):
        await drained(owner)
        backup = await owner.save()
        for number in range(15):
            await owner.write(number, "suspended")
        await drained(owner)
        await next_heartbeat(owner)
    await owner.put_back(backup)


RESTORED = dict.fromkeys(range(10), (1, "active")) | dict.fromkeys(range(10, 15), (1, "removed"))


async def test_a_database_of_a_lower_counter_publishes_nothing_until_the_restore_is_finished(owner: Owner) -> None:
    await published(owner)
    log = len(await owner.log_of(MEMBERSHIPS.name))
    count = len(await heartbeats(owner))
    await owner.write(3, "suspended")
    async with running(owner.relay()) as relay:
        assert "25 records" in await refused(relay)
        await waits(relay, 1)
    # Heartbeats are gone in an hour; what they told is not.
    await owner.make_again(HEARTBEATS)
    async with running(owner.relay()) as relay:
        await refused(relay)
        await waits(relay, 1)
        assert len(await owner.log_of(MEMBERSHIPS.name)) == log
        assert (await heartbeats(owner), count > 0) == ([], True)
        await ask(owner)
        await finished(owner)
        assert (relay.refusal, relay.restoring, relay.doubt) == (None, False, None)
        reader = await Reader.of(owner)
        assert reader.holds({**RESTORED, 3: (2, "suspended")}, epoch=2)
        await owner.write(12, "active")
        await drained(owner)
        reader = await Reader.of(owner)
        assert reader.holds({**RESTORED, 3: (2, "suspended"), 12: (2, "active")}, epoch=2)
    (restore,) = await owner.rows("select * from outbox_restores")
    assert (restore["epoch_before"], restore["epoch"], restore["republished"], restore["withdrawn"]) == (1, 2, 10, 5)
    (publisher,) = await owner.rows("select * from outbox_publisher")
    assert (publisher["epoch"], publisher["epoch_complete"], publisher["refusal"]) == (2, True, None)


async def test_heartbeats_say_that_the_epoch_is_not_complete_until_all_of_it_is_in_the_log(owner: Owner) -> None:
    await published(owner)
    async with running(owner.relay()) as relay:
        await refused(relay)
        async with held(owner, 4):
            await ask(owner)
            found = await wait_until(
                lambda: beats(owner), lambda all_: all_[-1].epoch == 2, describe="heartbeats go on"
            )
            assert not found[-1].data.epoch_complete
            assert relay.restoring
            await next_heartbeat(owner)
            assert {beat.data.epoch_complete for beat in await beats(owner) if beat.epoch == 2} == {False}
        await finished(owner)
    complete = next(beat for beat in await beats(owner) if beat.epoch == 2 and beat.data.epoch_complete)
    ends = {position.partition: position.next_offset for position in complete.data.positions}
    assert (await Reader.of(owner, ends=ends)).holds(RESTORED, epoch=2)


async def test_a_restore_whose_leader_died_is_finished_by_the_next(owner: Owner) -> None:
    await published(owner)
    async with held(owner, 4):
        await ask(owner)
        for _ in range(2):
            before = (await beats(owner))[-1].epoch
            async with running(owner.relay()):
                await later_epoch(owner, before)
    async with running(owner.relay()):
        await finished(owner)
    assert (await Reader.of(owner)).holds(RESTORED, epoch=4)
    (restore,) = await owner.rows("select * from outbox_restores")
    assert (restore["epoch_before"], restore["epoch"], restore["republished"]) == (1, 4, 10)


async def test_a_restored_database_is_above_every_epoch_the_log_has_heard_of(owner: Owner) -> None:
    await published(owner)
    await owner.forge(MEMBERSHIPS, key_of(2).encode(), record_of(2, 9, epoch=6))
    await owner.forge(MEMBERSHIPS, b"no key", b"nothing to read")
    async with running(owner.relay()):
        await ask(owner)
        await finished(owner)
    reader = await Reader.of(owner)
    assert reader.holds(RESTORED, epoch=7)


async def test_what_a_transaction_of_before_the_epoch_wrote_is_published_under_it(owner: Owner) -> None:
    await published(owner)
    async with running(owner.relay()) as relay:
        await refused(relay)
        async with owner.database.unit_of_work() as work:
            await owner.write_in(work, 20, "suspended")
            await ask(owner)
            await later_epoch(owner, 1)
        await finished(owner)
        await drained(owner)
    assert (await Reader.of(owner)).holds({**RESTORED, 20: (1, "suspended")}, epoch=2)


async def test_a_restored_database_that_publishes_a_lost_log_too(owner: Owner) -> None:
    await published(owner)
    await owner.make_again(MEMBERSHIPS)
    async with running(owner.relay()):
        await ask(owner)
        await finished(owner)
        await next_heartbeat(owner)
    known = {number: state for number, state in RESTORED.items() if number < 10}
    assert (await Reader.of(owner)).holds(known, epoch=2)


@pytest.mark.parametrize(("column", "says"), [("system_id = '7'", "another PostgreSQL"), ("timeline = 0", "promoted")])
async def test_another_server_or_timeline_is_refused_until_the_restore_is_finished(
    owner: Owner, column: str, says: str
) -> None:
    await owner.write(1)
    async with running(owner.relay()):
        await next_heartbeat(owner)
    (known,) = await owner.rows("select system_id, timeline from outbox_publisher")
    await owner.rows(f"update outbox_publisher set {column}")  # noqa: S608 - of this file
    count = len(await owner.log_of(HEARTBEATS.name))
    async with running(owner.relay()) as relay:
        assert says in await refused(relay)
        await owner.write(2)
        await waits(relay, 1)
        assert len(await owner.log_of(HEARTBEATS.name)) == count
        await ask(owner)
        await finished(owner)
    assert (await Reader.of(owner)).holds({1: (1, "active"), 2: (1, "active")}, epoch=2)
    assert await owner.rows("select system_id, timeline from outbox_publisher") == [known]


async def test_a_restore_asked_for_of_a_leader_that_saw_nothing_wrong_is_carried_out(owner: Owner) -> None:
    await owner.write(1)
    async with running(owner.relay()):
        await next_heartbeat(owner)
        await ask(owner)
        await finished(owner)
        await owner.write(1, "removed")
        await drained(owner)
    assert (await Reader.of(owner)).holds({1: (2, "removed")}, epoch=2)


async def finish(home: Path, url: str | None) -> tuple[int | None, str]:
    """The command as an operator runs it without an installation; its exit status and all it printed."""
    environment = {**os.environ, "KISUM_HOME": str(home / "none")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "restore", "finish", "auth"),
        cwd=ROOT,
        env=environment if url is None else {**environment, "KISUM_AUTH_DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    return process.returncode, told.decode()


async def followers(owner: Owner, count: int) -> None:
    await wait_until(
        lambda: owner.rows("select from pg_stat_activity where application_name = 'kisum restore'"),
        lambda rows: len(rows) == count,
        describe="who asked follows",
    )


async def test_the_command_asks_follows_and_tells_what_was_done(owner: Owner, tmp_path: Path) -> None:
    await published(owner)
    first = asyncio.create_task(finish(tmp_path, owner.url))
    await followers(owner, 1)
    second = asyncio.create_task(finish(tmp_path, owner.url))
    await followers(owner, 2)
    async with running(owner.relay()):
        (status, told), (status_again, told_again) = await asyncio.gather(first, second)
    assert (status, status_again) == (0, 0), told + told_again
    assert "asked the relay of auth" in told
    assert "under way already" in told_again
    for each in (told, told_again):
        assert "the epoch is 2, after 1" in each
        assert each.splitlines()[-1].endswith("epoch 2 is complete, 10 states published again, 5 withdrawn")
    (row,) = await owner.rows("select count(*) as n from outbox_restores")
    assert row["n"] == 1


async def test_the_command_says_why_nothing_is_published_and_where_it_looked_in_vain(
    owner: Owner, tmp_path: Path
) -> None:
    await published(owner)
    async with running(owner.relay()) as relay:
        reason = await refused(relay)
        _, told = await finish(tmp_path, owner.url)
    assert f"auth publishes nothing: {reason}" in told
    status, told = await finish(tmp_path, None)
    assert (status, "KISUM_AUTH_DATABASE_URL" in told) == (1, True)
    status, told = await finish(tmp_path, owner.url.replace(owner.url.rpartition(":")[2], "1/nothing"))
    assert (status, "the database of auth cannot be reached" in told) == (1, True)


async def test_what_lies_in_another_partition_than_its_keys_blocks_nobody_once_a_restore_is_finished(
    owner: Owner,
) -> None:
    await published(owner)
    for number, value in ((3, b"no JSON"), (20, b"{"), (21, record_of(21, 5, "active"))):
        key = key_of(number).encode()
        other = (partition_of(key, MEMBERSHIPS.partitions) + 1) % MEMBERSHIPS.partitions
        await owner.forge(MEMBERSHIPS, key, value, partition=other)
    await ask(owner)
    async with running(owner.relay()):
        await finished(owner)
    reader = await Reader.of(owner)
    assert reader.is_well
    assert {epoch for epoch, _, _ in reader.states.values()} == {2}
    statuses = await owner.rows("select status from members where key = any ($1)", [key_of(20), key_of(21)])
    assert [row["status"] for row in statuses] == ["removed", "removed"]


async def test_who_is_cancelled_while_a_reader_of_a_log_ends_ends_it(owner: Owner) -> None:
    kafka = FaultyKafka(KafkaClients(owner.kafka))
    kafka.may_stop.clear()

    async def visit(_partition: Partition, _record: Any) -> None: ...

    reading = asyncio.create_task(read_through(kafka, (MEMBERSHIPS,), visit))
    await kafka.stopping.wait()
    reading.cancel()
    kafka.may_stop.set()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert [reader.is_stopped for reader in kafka.readers] == [True]
