"""What only a broker that can be told to forget can show of the owner's tail."""

import asyncio
from contextlib import closing, suppress
from datetime import UTC, datetime
from random import Random
from typing import Final

import pytest

from contracts.topics import TOPICS
from infra.outbox.log import LogUnavailableError
from infra.outbox.store import Progress
from infra.outbox.tail import Tail
from tests.simulation.database import SimulatedDatabase
from tests.simulation.kafka import SimulatedBroker, SimulatedKafka
from tests.simulation.loop import SimulatedLoop
from tests.simulation.source import SimulatedSource

PERMISSIONS: Final = next(topic for topic in TOPICS if topic.name == "auth.permissions.v1")
NOW: Final = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
READ_SECONDS: Final = 5.0


@pytest.mark.parametrize("checked_before", [0, 1], ids=["read", "of the leader before"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_log_is_known_again_by_the_record_that_was_read_last(*, replaced: bool, checked_before: int) -> None:
    random = Random(1)
    with closing(SimulatedLoop(random)) as loop:
        broker = SimulatedBroker(loop, random)
        kafka = SimulatedKafka(broker, loop.process("owner"))
        tail = Tail(
            (PERMISSIONS,),
            {PERMISSIONS.name: SimulatedSource(PERMISSIONS)},
            SimulatedDatabase(loop, random, clock=lambda: NOW, name="database"),  # type: ignore[arg-type]
            [
                Progress(PERMISSIONS.name, partition, broker.topic_id(PERMISSIONS.name), checked_before, checked_before)
                for partition in range(PERMISSIONS.partitions)
            ],
            ends={},
            epoch=1,
            clock=lambda: NOW,
            wake=lambda: None,
        )
        doubts: list[str | None] = []

        def is_sending() -> bool:
            doubts.append(tail.doubt)
            return False

        async def read_on() -> None:
            doubts.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    await tail.read(kafka, is_sending=is_sending)

        async def history() -> None:
            broker.append_raw(PERMISSIONS.name, 0, b"finance", b"first")
            await read_on()
            broker.lose_tail(PERMISSIONS.name, 0, 1)
            broker.append_raw(PERMISSIONS.name, 0, b"finance", b"second" if replaced else b"first")
            if replaced:
                with pytest.raises(LogUnavailableError):
                    await read_on()
            else:
                await read_on()
                assert doubts[-1] is None
            # Until it is known, no heartbeat says anything.
            assert doubts[0] is not None

        loop.run_until_complete(history())
        assert tail.take_lost() == ({(PERMISSIONS.name, 0)} if replaced else set())
        assert tail.take_lost() == set()
