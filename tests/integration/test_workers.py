"""How the workers of a port are kept: who dies, hangs or cannot start."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from tests.harness.waiting import wait_until


@dataclass
class Parent:
    """The parent of two workers, and what it tells."""

    process: asyncio.subprocess.Process
    told: list[dict[str, Any]] = field(default_factory=list)

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            with contextlib.suppress(ValueError):
                self.told.append(json.loads(line))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.told if line.get("event") == event]

    async def until(self, event: str, number: int) -> list[dict[str, Any]]:
        async def told() -> list[dict[str, Any]]:
            return self.of(event)

        return await wait_until(told, lambda found: len(found) >= number, describe=f"{number} times {event!r}")

    def children(self) -> set[int]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return {child.pid for child in psutil.Process(self.process.pid).children()}
        return set()

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def parent_of(factory: str) -> AsyncIterator[Parent]:
    parent = Parent(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.serving_program", factory),
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    listening = asyncio.create_task(parent.listen())
    try:
        yield parent
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.process.pid, signal.SIGKILL)
        await parent.process.wait()
        await listening


async def test_who_dies_is_replaced_while_another_hangs_and_who_hangs_after_that() -> None:
    async with parent_of("serving") as parent:
        hanging, dying = sorted(line["pid"] for line in await parent.until("a worker serves", 2))
        before = parent.children()
        os.kill(hanging, signal.SIGSTOP)
        os.kill(dying, signal.SIGKILL)

        async def successors() -> set[int]:
            return parent.children() - before

        await wait_until(successors, bool, describe="a successor of who died")
        assert hanging in parent.children()
        await parent.until("a worker serves", 3)
        (killed,) = await parent.until("a worker hangs and is killed", 1)
        assert killed["pid"] == hanging
        served = {line["pid"] for line in await parent.until("a worker serves", 4)}
        assert len(served) == 4
        assert [line["replaced_in_seconds"] for line in parent.of("a worker died")] == [0.0, 0.0]
        assert await parent.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("factory", "code", "pauses_seconds"), [("dying", 7, [0.0, 0.5, 1.0, 2.0]), ("killed", -9, [0.0, 0.0, 0.0, 0.0])]
)
async def test_who_ends_by_itself_before_it_serves_is_replaced_later_and_later(
    factory: str, code: int, pauses_seconds: list[float]
) -> None:
    async with parent_of(factory) as parent:
        died = (await parent.until("a worker died", 4))[:4]
        assert {line["code"] for line in died} == {code}
        assert [line["replaced_in_seconds"] for line in died] == pauses_seconds
        assert await parent.end(signal.SIGTERM) == 0


async def test_workers_that_cannot_start_end_their_parent() -> None:
    async with parent_of("refusing_to_start") as parent:
        assert await parent.process.wait() == 1
        assert parent.of("a worker cannot start what it serves; all are stopped")


async def test_ctrl_c_which_ends_the_workers_too_replaces_none() -> None:
    async with parent_of("serving") as parent:
        await parent.until("a worker serves", 2)
        os.killpg(parent.process.pid, signal.SIGINT)
        assert await parent.process.wait() == 0
        assert not parent.of("a worker died")
