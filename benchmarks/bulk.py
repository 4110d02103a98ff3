"""A million memberships change in the bulk lane while revocations run.

The changes are committed by a process of its own, as by a second instance of Auth: in chunks, each when there is room
in the outbox (`infra.outbox.bulk`). Auth's relay sends them, thirteen instances apply them. Revocations are measured
with the bulk going on and with it held, in turns. As a program it is given the address of Auth's database, obeys `go`
and `hold`, and tells how many it has committed.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import uvloop
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.bed import Bed
from benchmarks.figures import Figure, percentile
from benchmarks.fleet import Fleet
from benchmarks.programs import given, program, tell, told
from benchmarks.record_log import MEMBERSHIPS_COUNT
from benchmarks.reference import MembershipRecords
from benchmarks.revocation import headers_of, revoke_once, revoking
from cli import progress
from cli.demo.story import Story
from cli.demo.waiting import wait_until
from cli.installation import Installation
from contracts.envelope import HEADER_TYPE
from contracts.events.auth import GrantChanged
from contracts.topics import TOPICS
from infra.outbox.bulk import CHUNK_ROWS_MAX, in_chunks
from infra.outbox.tables import states
from infra.outbox.writer import Lane
from infra.postgres.database import Database
from infra.tasks import end_tasks

_HELD_REVOCATIONS: Final = 25
#: How long the bulk goes on before it is held again. A caller's token lives for ten minutes.
_GOING_SECONDS: Final = 60.0
_SETTLED_SECONDS: Final = 60.0
_WATCH_PAUSE_SECONDS: Final = 0.5
#: A busy machine is no failure.
_REQUEST_TIMEOUT_SECONDS: Final = 60.0
_TOLD_EACH: Final = 100_000
_TOPIC: Final = next(topic.name for topic in TOPICS if GrantChanged in topic.payloads)


async def measure(bed: Bed) -> list[Figure]:
    """Rounds of revocations with the bulk held and going, until it is done."""
    fleet = await bed.fleet()
    url = Installation(fleet.system.state).database_url("auth")
    held: list[float] = []
    going: list[float] = []
    going_seconds = 0.0
    async with program("benchmarks.bulk", gives={"url": url}) as process:
        bulk = _Bulk(process)
        following = asyncio.create_task(bulk.follow())
        try:
            async with _watched(fleet) as watch:
                while not bulk.is_done():
                    async with revoking(fleet.system) as story:
                        watch.headers = headers_of(story)
                        held += [(await revoke_once(story))[0] for _ in range(_HELD_REVOCATIONS)]
                        bulk.say("go")
                        begun = time.monotonic()
                        while not bulk.is_done() and time.monotonic() - begun < _GOING_SECONDS:
                            going.append((await revoke_once(story))[0])
                        bulk.say("hold")
                        going_seconds += time.monotonic() - begun
                        await _settled(story)
        finally:
            await end_tasks(following)
    return [
        Figure("bulk_revoke_held_p50_ms", percentile(held, 50), "ms"),
        Figure("bulk_revoke_held_p99_ms", percentile(held, 99), "ms"),
        Figure("bulk_revoke_p50_ms", percentile(going, 50), "ms"),
        Figure("bulk_revoke_p99_ms", percentile(going, 99), "ms"),
        Figure("bulk_p99_vs_idle", percentile(going, 99) / percentile(held, 99), "x"),
        Figure("bulk_unavailable_answers", watch.unavailable, "answers"),
        Figure("bulk_answers_watched", watch.answers, "answers"),
        Figure("bulk_rows_per_second", MEMBERSHIPS_COUNT / going_seconds, "1/s"),
    ]


class _Bulk:
    """The program, and how far it is."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._committed = 0

    def is_done(self) -> bool:
        """Whether all of it is committed."""
        return self._committed >= MEMBERSHIPS_COUNT

    def say(self, word: str) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(f"{word}\n".encode())

    async def follow(self) -> None:
        """Note what it tells, until it is done."""
        while not self.is_done():
            before, self._committed = self._committed, await told(self._process)
            if self._committed // _TOLD_EACH > before // _TOLD_EACH:
                progress.line(f"  {self._committed:,} memberships changed")


async def _settled(story: Story) -> None:
    """Wait until nothing is pending."""
    async with story.system.database("auth") as connection:
        await wait_until(
            lambda: connection.fetchval("select count(*) from outbox_states"),
            lambda pending: bool(pending == 0),
            describe="the outbox is empty",
            timeout_seconds=_SETTLED_SECONDS,
        )


@dataclass
class _Watch:
    """Answers of all instances, and how many of them were 503."""

    headers: Mapping[str, str] = field(default_factory=dict)
    answers: int = 0
    unavailable: int = 0


@asynccontextmanager
async def _watched(fleet: Fleet) -> AsyncIterator[_Watch]:
    """Ask every instance again and again: those of the module for an expense, all others whether they are ready."""
    watch = _Watch()
    system = fleet.system
    urls = [f"{address}/expenses?limit=1" for address in fleet.addresses]
    urls += [system.url(name, "/readyz") for part in system.record.parts for name in part.route_groups]
    async with httpx.AsyncClient(trust_env=False, timeout=_REQUEST_TIMEOUT_SECONDS) as http:
        watching = asyncio.create_task(_keep_asking(http, urls, watch))
        try:
            yield watch
        finally:
            failed = watching.exception() if watching.done() else None
            await end_tasks(watching)
    if failed is not None:
        raise failed


async def _keep_asking(http: httpx.AsyncClient, urls: Sequence[str], watch: _Watch) -> None:
    while True:
        for url in urls:
            answer = await http.get(url, headers=dict(watch.headers))
            watch.answers += 1
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                watch.unavailable += 1
                progress.line(f"  {url}: {answer.text}")
        await asyncio.sleep(_WATCH_PAUSE_SECONDS)


# The program.


async def _main(its_own: Mapping[str, Any]) -> None:
    may_go, loop = asyncio.Event(), asyncio.get_running_loop()
    words = {"go": may_go.set, "hold": may_go.clear}

    def obey() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(words[line.strip()])

    obeying = loop.run_in_executor(None, obey)
    database = Database(its_own["url"], application_name="bulk")
    # Newer than what any run before has left.
    version = int(time.time())
    records = MembershipRecords(MEMBERSHIPS_COUNT, version=version)

    async def change(work: AsyncSession, reached: int | None) -> int | None:
        await may_go.wait()
        first, now = reached or 0, datetime.now(UTC)
        chosen = [records.of(number) for number in range(first, min(first + CHUNK_ROWS_MAX, MEMBERSHIPS_COUNT))]
        if not chosen:
            return None
        rows = [
            {
                "topic": _TOPIC,
                "key": record.key.decode(),
                "value": record.value,
                "headers": {HEADER_TYPE: GrantChanged.event_type},
                "epoch": 1,
                "version": version,
                "lane": int(Lane.BULK),
                "occurred_at": now,
            }
            for record in chosen
        ]
        await work.execute(insert(states), rows)
        tell(first + len(chosen))
        return first + len(chosen)

    try:
        await in_chunks(database, change)
        await obeying
    finally:
        await database.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(given()))
