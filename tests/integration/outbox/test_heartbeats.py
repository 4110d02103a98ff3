"""What a heartbeat says of a time holds: all that was committed by then and is urgent lies below its offsets."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import MEMBERSHIPS, Owner, heartbeats, key_of, next_heartbeat, running
from tests.integration.outbox.test_relay import limit_records

#: Until when each version of a member was committed.
Committed = dict[tuple[int, int], datetime]


async def commit(owner: Owner, committed: Committed, number: int, **how: Any) -> None:
    revision = await owner.write(number, **how)
    (row,) = await owner.rows("select clock_timestamp() as at")
    committed[number, revision.version] = row["at"]


async def all_hold(owner: Owner, committed: Mapping[tuple[int, int], datetime]) -> None:
    """For every heartbeat: the member's record of that version, or of a later one, lies below what it says."""
    places: dict[str, list[tuple[int, int, int]]] = {}
    for record in await owner.log_of(MEMBERSHIPS.name):
        version = json.loads(record.value)["version"]
        places.setdefault(record.key.decode(), []).append((version, record.partition, record.offset))
    for beat in await heartbeats(owner):
        ends = {position.partition: position.next_offset for position in beat.positions}
        for (number, version), at in committed.items():
            if at <= beat.as_of:
                assert any(
                    found >= version and offset < ends[partition] for found, partition, offset in places[key_of(number)]
                ), (beat.as_of, number, version)


async def test_a_row_the_log_refuses_holds_once_its_key_is_published_as_unknown(owner: Owner) -> None:
    await limit_records(owner, 8_000)
    committed: Committed = {}
    async with running(owner.relay()):
        await next_heartbeat(owner)
        for number in range(30):
            await commit(owner, committed, number, bytes_more=20_000 if number % 5 == 0 else 0)
        last = max(committed.values())
        await wait_until(
            lambda: heartbeats(owner), lambda all_: all_[-1].as_of > last, describe="heartbeats hold for all of it"
        )
    await all_hold(owner, committed)
    statuses = [status for _, status in (await owner.last_states()).values()]
    assert (statuses.count("unknown"), statuses.count("active")) == (6, 24)


async def test_while_more_is_pending_than_a_round_takes_nothing_is_said_of_what_comes_later(owner: Owner) -> None:
    async with owner.database.unit_of_work() as work:
        for number in range(2500):
            await owner.write_in(work, number)
    (row,) = await owner.rows("select clock_timestamp() as at")
    async with running(owner.relay()):
        await next_heartbeat(owner)
    await all_hold(owner, {(number, 1): row["at"] for number in range(2500)})


async def test_what_heartbeats_say_holds_while_leaders_come_and_go(owner: Owner) -> None:
    committed: Committed = {}
    done = asyncio.Event()

    async def write() -> None:
        number = 0
        while not done.is_set():
            await commit(owner, committed, number % 20)
            number += 1

    writing = asyncio.create_task(write())
    async with running(owner.relay()), running(owner.relay()):
        for _ in range(3):
            await next_heartbeat(owner)
            await owner.rows(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'outbox relay' and usename = current_user and pid in"
                " (select pid from pg_locks where locktype = 'advisory' and granted)"
            )
        await next_heartbeat(owner)
        done.set()
        await writing
        last = max(committed.values())
        await wait_until(
            lambda: heartbeats(owner), lambda all_: all_[-1].as_of > last, describe="heartbeats hold for all of it"
        )
    assert len(committed) > 40
    await all_hold(owner, committed)
