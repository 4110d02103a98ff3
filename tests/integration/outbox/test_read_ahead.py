"""Rows are read while those before them are sent: nothing is skipped, sent twice or out of order by that."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from itertools import pairwise

import pytest
from aiokafka.errors import KafkaError

from infra.outbox import leader
from infra.outbox.log import Log, Sent
from infra.outbox.relay import Relay
from infra.outbox.store import OutboxStore, Row, Settlement
from infra.outbox.writer import Lane
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import MEMBERSHIPS, Owner, drained, heartbeats, key_of, running

BATCH = 5
#: More than one round sends.
NUMBERS = range(1, 12 * BATCH)


class Watched:
    """The batches a relay sends, by their keys, and what is done each time it reads ahead."""

    def __init__(self, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
        self._owner = owner
        self.batches: list[list[str]] = []
        #: Of each reading of urgent rows, whether it was ahead.
        self.readings: list[bool] = []
        #: The batch that the log does not take, by its place.
        self.failing: int | None = None
        self.meanwhile: Callable[[], Awaitable[object]] = _nothing
        self.unsettled = self.unsettled_max = 0
        monkeypatch.setattr(leader, "_BATCH_ROWS_MAX", BATCH)
        monkeypatch.setattr(leader, "Log", self._log_class())

    def relay(self) -> Relay:
        return self._owner.relay(open_store=self._open_store)

    async def _open_store(self) -> OutboxStore:
        watched = self

        class Store(OutboxStore):
            async def read_states(self, lane: Lane, limit: int, *, behind: int = 0) -> tuple[datetime, list[Row]]:
                if lane is Lane.INTERACTIVE:
                    watched.readings.append(behind > 0)
                if behind:
                    await watched.meanwhile()
                return await super().read_states(lane, limit, behind=behind)

            async def settle(self, settlement: Settlement, *, newly_acknowledged: int) -> set[tuple[str, str]]:
                answer = await super().settle(settlement, newly_acknowledged=newly_acknowledged)
                watched.unsettled -= newly_acknowledged
                return answer

        return await Store.open(self._owner.url)

    def _log_class(self) -> type[Log]:
        watched = self

        class WatchedLog(Log):
            async def send(self, rows: Sequence[Row]) -> list[Sent]:
                if rows[0].topic != MEMBERSHIPS.name:
                    return await super().send(rows)
                watched.batches.append([row.key for row in rows])
                if len(watched.batches) - 1 == watched.failing:
                    return [Sent(MEMBERSHIPS.name, 0, error=KafkaError("not taken"))]
                watched.unsettled += len(rows)
                watched.unsettled_max = max(watched.unsettled_max, watched.unsettled)
                return await super().send(rows)

        return WatchedLog


async def _nothing() -> None:
    """Nothing happens meanwhile."""


@pytest.fixture
def watched(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(owner, monkeypatch)


async def write_all(owner: Owner) -> None:
    async with owner.database.unit_of_work() as work:
        for number in NUMBERS:
            await owner.write_in(work, number)


async def test_what_commits_late_and_lies_before_what_is_read_ahead_is_sent_soon(
    owner: Owner, watched: Watched
) -> None:
    async with owner.database.unit_of_work() as late:
        await owner.write_in(late, 0)
        await write_all(owner)
        committed: list[datetime] = []

        async def commit() -> None:
            if not committed:
                await late.commit()
                (row,) = await owner.rows("select clock_timestamp() as at")
                committed.append(row["at"])

        watched.meanwhile = commit
        async with running(watched.relay()):
            await drained(owner)
            told = await wait_until(
                lambda: heartbeats(owner),
                lambda all_: bool(all_) and all_[-1].as_of > committed[0],
                describe="it is told",
            )
    (batch,) = [place for place, keys in enumerate(watched.batches) if key_of(0) in keys]
    assert 1 < batch <= leader._AHEAD_BATCHES_MAX + 2
    assert [len(keys) for keys in watched.batches].count(BATCH) > leader._AHEAD_BATCHES_MAX
    (record,) = [record for record in await owner.log_of(MEMBERSHIPS.name) if record.key.decode() == key_of(0)]
    for heartbeat in told:
        ends = {position.partition: position.next_offset for position in heartbeat.positions}
        assert heartbeat.as_of < committed[0] or ends[record.partition] > record.offset


async def test_what_was_read_ahead_of_a_batch_that_fails_is_not_sent(owner: Owner, watched: Watched) -> None:
    await write_all(owner)
    watched.failing = 2
    async with running(watched.relay()):
        await drained(owner)
    batches = [[key_of(number) for number in NUMBERS[start : start + BATCH]] for start in range(0, 4 * BATCH, BATCH)]
    assert watched.batches[:5] == [*batches[:3], batches[2], batches[3]]
    assert set(await owner.last_states()) == {key_of(number) for number in NUMBERS}


async def test_a_heartbeat_that_is_due_ends_the_reading_ahead(
    owner: Owner, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "INTERVAL_SECONDS", 0.0)
    await write_all(owner)
    async with running(watched.relay()):
        await drained(owner)
    assert True in watched.readings
    assert (True, True) not in pairwise(watched.readings)


async def test_keys_that_change_while_they_are_sent_and_read_ahead_keep_their_order(
    owner: Owner, watched: Watched
) -> None:
    await write_all(owner)
    changed = iter(NUMBERS)

    async def change() -> None:
        # One that was sent or is being sent, and one that is still to be read.
        number = next(changed)
        await owner.write(number, "suspended")
        await owner.write(NUMBERS[-number], "removed")

    watched.meanwhile = change
    async with running(watched.relay()):
        await drained(owner)
    histories = {number: await versions_of(owner, number) for number in (1, 2, 3, NUMBERS[-1])}
    assert histories == {1: [1, 2], 2: [1, 2], 3: [1, 2], NUMBERS[-1]: [2]}
    sent = [record.key for record in await owner.log_of(MEMBERSHIPS.name)]
    assert len(sent) == sum(map(len, watched.batches))
    # A log that became shorter is filled to beyond what can have been in it.
    assert BATCH < watched.unsettled_max <= leader._unsettled_rows_max()


async def versions_of(owner: Owner, number: int) -> list[int]:
    return [version for version, _ in await owner.history(number)]
