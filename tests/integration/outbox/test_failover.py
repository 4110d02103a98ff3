"""Relays that die, freeze and wake up: nothing is lost, and the log never ends with an older state."""

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from infra.outbox.writer import Revision
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import MEMBERSHIPS, Members, Owner, key_of, running

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def relay_process(owner: Owner, point: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.outbox.relay_program",
        point,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"url": owner.url, "kafka": dataclasses.asdict(owner.kafka)}).encode() + b"\n")
    await process.stdin.drain()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def told(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while True:
            line = (await process.stdout.readline()).decode().strip()
            if line.startswith("at: "):
                return line.removeprefix("at: ")


async def leader_sessions(owner: Owner) -> int:
    (row,) = await owner.rows("select count(*) as n from pg_locks where locktype = 'advisory' and granted")
    return int(row["n"])


async def test_a_state_that_waits_for_its_deletion_is_sent_again_over_an_older_one(owner: Owner) -> None:
    await owner.write(1)
    async with running(owner.relay()):
        await wait_until(owner.pending, lambda n: n == 0, describe="the first is published")
    (older,) = await owner.log_of(MEMBERSHIPS.name)
    await owner.write(1, "removed")
    healed = 0

    class Counted(Members):
        async def republish(self, work: AsyncSession, key: str, **how: Any) -> Revision | None:
            nonlocal healed
            revision = await super().republish(work, key, **how)
            healed += 1
            return revision

    async with running(owner.relay(sources={MEMBERSHIPS.name: Counted()})):
        async with owner.database.unit_of_work() as holder:
            # As weak a lock as keeps the relay from deleting the row, and nobody from publishing again.
            await holder.execute(text("select from outbox_states for key share"))
            await wait_until(lambda: owner.history(1), lambda h: h[-1] == (2, "removed"), describe="it is sent")
            await owner.send_raw(MEMBERSHIPS, older)
            await wait_until(lambda: asyncio.sleep(0, healed), bool, describe="the older one is found")
        await wait_until(owner.pending, lambda n: n == 0, describe="the row is deleted")
    assert await owner.last_states() == {key_of(1): (3, "removed")}


@pytest.mark.parametrize(("point", "copies"), [("before-sending", 1), ("before-deleting", 2)])
async def test_a_relay_killed_between_send_and_delete_loses_nothing(owner: Owner, point: str, copies: int) -> None:
    numbers = range(1, 21)
    for number in numbers:
        await owner.write(number)
    async with relay_process(owner, point) as process:
        assert await told(process) == point.replace("-", " ")
        process.kill()
        await process.wait()
    assert await owner.pending() == 20
    async with running(owner.relay()):
        await wait_until(owner.pending, lambda n: n == 0, describe="the next relay sends them")
    records = [record.key.decode() for record in await owner.log_of(MEMBERSHIPS.name)]
    assert set(records) == {key_of(number) for number in numbers}
    # A next leader sends again whatever it finds in the log that it did not send itself.
    assert min(map(records.count, records)) >= copies


async def test_a_relay_that_was_frozen_and_wakes_up_leaves_no_older_state_last(owner: Owner) -> None:
    await owner.write(1, "active")
    async with relay_process(owner, "frozen") as process:
        assert await told(process) == "freezing"
        frozen = psutil.Process(process.pid)
        await wait_until(
            lambda: asyncio.to_thread(frozen.status), lambda s: s == psutil.STATUS_STOPPED, describe="it is frozen"
        )
        async with running(owner.relay()) as standby:
            await wait_until(lambda: asyncio.sleep(0, standby.leads), bool, describe="the standby takes over")
            await owner.write(1, "removed")
            await wait_until(owner.pending, lambda n: n == 0, describe="the removal is published")
            assert await owner.last_states() == {key_of(1): (2, "removed")}
            os.kill(process.pid, signal.SIGCONT)

            def versions(records: list[tuple[int, str]]) -> list[int]:
                return [version for version, _ in records]

            history = await wait_until(
                lambda: owner.history(1),
                lambda found: versions(found)[-2:] == [1, 3],
                describe="the woken relay's older state, and the newer one again behind it",
            )
            assert versions(history) == [2, 1, 3]
            assert await leader_sessions(owner) == 1
    assert await owner.last_states() == {key_of(1): (3, "removed")}


async def test_an_older_state_that_came_while_nobody_led_is_found_by_the_next_leader(owner: Owner) -> None:
    async with running(owner.relay()):
        await owner.write(1, "active")
        await owner.write(2, "active")
        await wait_until(owner.pending, lambda n: n == 0, describe="published")
        (old,) = (record for record in await owner.log_of(MEMBERSHIPS.name) if record.key.decode() == key_of(1))
        await owner.write(1, "removed")
        await wait_until(owner.pending, lambda n: n == 0, describe="published")
    await owner.send_raw(MEMBERSHIPS, old)
    assert (await owner.last_states())[key_of(1)] == (1, "active")
    async with running(owner.relay()):
        await wait_until(
            owner.last_states, lambda states: states[key_of(1)] == (3, "removed"), describe="the log ends right"
        )
    assert [version for version, _ in await owner.history(2)][-1] == 1


async def test_a_leader_whose_session_was_ended_stops_and_one_leads_again(owner: Owner) -> None:
    async with running(owner.relay()) as one, running(owner.relay()) as other:
        await wait_until(lambda: asyncio.sleep(0, one.leads or other.leads), bool, describe="one leads")
        for number in range(1, 4):
            await owner.rows(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'outbox relay' and usename = current_user and pid in"
                " (select pid from pg_locks where locktype = 'advisory' and granted)"
            )
            await owner.write(number)
            await wait_until(owner.pending, lambda n: n == 0, describe="it goes on")
            assert await leader_sessions(owner) == 1
    assert set(await owner.last_states()) == {key_of(number) for number in range(1, 4)}
