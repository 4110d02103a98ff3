"""A relay in a process of its own that stops at a point a test names, so that the test can kill or freeze it there.

The configuration is one line of JSON on standard input; the point is the first argument. Reaching it is told on
standard output.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from infra.outbox import leader, relay
from infra.outbox.log import Log, Sent
from infra.outbox.store import OutboxStore, Row, Settlement
from infra.postgres.database import Database
from tests.integration.outbox.parts import HEARTBEATS, MEMBERSHIPS, Members


def _tell(point: str) -> None:
    sys.stdout.write(f"at: {point}\n")
    sys.stdout.flush()


class StopsBeforeSending(Log):
    async def send(self, rows: Sequence[Row]) -> list[Sent]:
        if any(row.topic == MEMBERSHIPS.name for row in rows):
            _tell("before sending")
            await asyncio.Event().wait()
        return await super().send(rows)


class StopsBeforeDeleting(OutboxStore):
    async def settle(self, settlement: Settlement, *, newly_acknowledged: int) -> set[tuple[str, str]]:
        if newly_acknowledged:
            _tell("before deleting")
            await asyncio.Event().wait()
        return await super().settle(settlement, newly_acknowledged=newly_acknowledged)


class FreezesBeforeSending(Log):
    """What it was about to send arrives when it wakes up, whatever it has learned by then."""

    _last: "asyncio.Task[list[Sent]] | None" = None

    async def send(self, rows: Sequence[Row]) -> list[Sent]:
        if any(row.topic == MEMBERSHIPS.name for row in rows):
            _tell("freezing")
            os.kill(os.getpid(), signal.SIGSTOP)
        self._last = asyncio.ensure_future(super().send(rows))
        return await asyncio.shield(self._last)

    async def close(self) -> None:
        if self._last is not None:
            await asyncio.wait([self._last])
        await super().close()


async def main(point: str, given: dict[str, Any]) -> None:
    logs: dict[str, type[Log]] = {"before-sending": StopsBeforeSending, "frozen": FreezesBeforeSending}
    stores: dict[str, type[OutboxStore]] = {"before-deleting": StopsBeforeDeleting}
    setattr(leader, "Log", logs.get(point, Log))  # noqa: B010 - a name the module does not export
    await relay.Relay(
        open_store=stores.get(point, OutboxStore).opener(given["url"]),
        database=Database(given["url"], application_name="test"),
        kafka=KafkaClients(KafkaConnection(**given["kafka"])),
        topics=(MEMBERSHIPS, HEARTBEATS),
        sources={MEMBERSHIPS.name: Members()},
    ).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.stdin.readline())))
