"""Several processes of one service on one cache, of which the one that writes is killed again and again."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio

from access import digest
from access.cache import Cache
from access.folder import holder_of
from tests.harness.access import Sources, grant
from tests.harness.waiting import wait_until
from tests.integration.access.asking import publish_allowed
from tests.integration.access.conftest import StartInstance

_ROUNDS = 6


@dataclass
class Worker:
    """A process, and what it has told."""

    process: asyncio.subprocess.Process
    told: dict[str, Any] = field(default_factory=dict)
    listening: "asyncio.Task[None] | None" = None

    @classmethod
    async def start(cls, folder: Path, sources: Sources) -> "Worker":
        kafka = asdict(sources.kafka)
        kafka.pop("security_protocol", None)
        given = {
            "folder": str(folder),
            "kafka": kafka,
            "company": str(sources.company_id),
            "user": str(sources.user_id),
        }
        worker = cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.integration.access.worker_program", json.dumps(given)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
        worker.listening = asyncio.create_task(worker._listen())
        return worker

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            facts = json.loads(line)
            if "event" not in facts:
                self.told |= facts

    async def until(self, describe: str, **facts: Any) -> None:
        async def told() -> dict[str, Any]:
            return self.told

        await wait_until(told, lambda found: facts.items() <= found.items(), describe=describe)

    async def end(self) -> dict[str, Any]:
        """Let it tell its counts and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self._over()
        return self.told

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self._over()

    async def _over(self) -> None:
        await self.process.wait()
        assert self.listening is not None
        await self.listening


@pytest_asyncio.fixture
async def workers(sources: Sources, tmp_path: Path) -> AsyncIterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        await worker.kill()


async def test_readers_follow_whoever_writes_and_one_takes_over_from_a_killed_one(
    sources: Sources, tmp_path: Path, workers: list[Worker], start_instance: StartInstance
) -> None:
    folder = tmp_path / "shared"
    await publish_allowed(sources)
    is_over = asyncio.Event()

    async def publish() -> int:
        version = 1
        while not is_over.is_set():
            version = await sources.publish(grant(sources.user_id))
            if version % 20 == 0:
                await sources.beat()
        return version

    publishing = asyncio.create_task(publish())
    try:
        workers += [await Worker.start(folder, sources)]
        await workers[0].until("it follows the log", ready=True, writer=True)
        workers += [await Worker.start(folder, sources)]
        await workers[1].until("it reads what the other writes", ready=True, writer=False)
        for _ in range(_ROUNDS):
            writer, reader = workers[-2:]
            assert holder_of(folder).pid == writer.process.pid
            await writer.kill()
            await reader.until("it takes over", ready=True, writer=True)
            workers += [await Worker.start(folder, sources)]
            await workers[-1].until("it reads what the other writes", ready=True, writer=False)
    finally:
        is_over.set()
        last = await publishing
    cache = Cache.open_in_use(folder)
    try:

        async def reached() -> int:
            return max(cache.positions(cache.head().active).values())

        await wait_until(reached, lambda found: found == last, describe="all is applied")
        for worker in workers[-2:]:
            assert (await worker.end())["seen"] == last
        told = [worker.told for worker in workers]
        # A look each millisecond, in which the writer was killed in the middle of what it did.
        assert sum(counts["looks"] for counts in told) > 100 * _ROUNDS
        assert [(counts["torn"], counts["went_back"], counts["unknown"]) for counts in told] == [(0, 0, 0)] * len(told)
        # Nothing is lost: it is what one process alone makes of the log.
        instance = await start_instance()
        await sources.beat()
        await instance.until(lambda path: path.ready.is_ready, "ready")
        assert digest.digests(cache) == digest.digests(instance.path.cache)
    finally:
        cache.close()
