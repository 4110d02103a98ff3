"""How fast the outbox empties, and how soon a row is acknowledged.

Auth runs as `kisum serve auth` does, alone on its servers. Rows are put into its outbox by one COPY in one transaction;
the relay counts what was acknowledged and deleted, and the count is read until all of it is.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, cast

import asyncpg

from benchmarks.bed import Bed
from benchmarks.figures import Figure, medians, percentile
from benchmarks.programs import free_port, program
from benchmarks.reference import MembershipRecords
from cli.demo.waiting import wait_until
from cli.running import problem_of
from contracts.envelope import HEADER_TYPE
from contracts.events.auth import GrantChanged
from contracts.topics import TOPICS
from infra.kafka.bootstrap import bootstrap
from infra.outbox.writer import Lane
from services.auth.app import service as auth
from tests.harness.runtime import Runtime
from tests.harness.services import ENCRYPTION_KEY, ROOT_KEY, service_database

_ROUNDS: Final = 3
_ROWS: Final = 100_000
_SINGLE_ROWS: Final = 300
#: Design §9; the relay reads no value, so that a record is cut or filled up to them.
_SIZES: Final = {"1200_b": 1200, "300_b": 300}
_TOPIC: Final = next(topic.name for topic in TOPICS if GrantChanged in topic.payloads)
_COLUMNS: Final = ("topic", "key", "value", "headers", "epoch", "version", "lane", "occurred_at")
_HEADERS: Final = f'{{"{HEADER_TYPE}": "{GrantChanged.event_type}"}}'
_LOOK_SECONDS: Final = 0.01
_SINGLE_PAUSE_SECONDS: Final = 0.02
_READY_SECONDS: Final = 60.0
_DONE_SECONDS: Final = 120.0
_PASSWORD: Final = "principal of a benchmark"  # noqa: S105  of servers that are thrown away


class _Outbox:
    """Auth's outbox as its operations fill it, with keys that are new each time."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._records = MembershipRecords(1_000_000)
        self._next = 0

    async def put(self, rows: int, size_bytes: int) -> float:
        """Commit so many rows; when PostgreSQL committed them, by the wall clock."""
        records = list(self._rows(rows, size_bytes))
        async with self._connection.transaction():
            transaction = await self._connection.fetchval("select pg_current_xact_id()::text")
            await self._connection.copy_records_to_table("outbox_states", records=records, columns=list(_COLUMNS))
        committed = await self._connection.fetchval("select pg_xact_commit_timestamp($1::text::xid)", transaction)
        return cast("datetime", committed).timestamp()

    async def acknowledged(self) -> int:
        """How many rows ever were."""
        return int(await self._connection.fetchval("select publish_counter from outbox_publisher"))

    async def until_acknowledged(self, count: int, *, look_seconds: float) -> float:
        """When so many were, by the wall clock."""
        async with asyncio.timeout(_DONE_SECONDS):
            while await self.acknowledged() < count:  # noqa: ASYNC110  another process counts
                await asyncio.sleep(look_seconds)
        return time.time()

    def _rows(self, rows: int, size_bytes: int) -> Iterator[tuple[Any, ...]]:
        now = datetime.now(UTC)
        for number in range(self._next, self._next + rows):
            record = self._records.of(number)
            value = record.value[:size_bytes].ljust(size_bytes)
            yield _TOPIC, record.key.decode(), value, _HEADERS, 1, 1, int(Lane.INTERACTIVE), now
        self._next += rows


async def measure(bed: Bed) -> list[Figure]:
    """Large rows, small rows, single rows, round after round."""
    async with _running_auth(await bed.runtime(), bed) as outbox:
        waits: list[float] = []
        found = await medians(
            {
                **{name: partial(_rate, outbox, name, size) for name, size in _SIZES.items()},
                "single": partial(_waits, outbox, waits),
            },
            _ROUNDS,
        )
    return [
        Figure("relay_rows_per_second", found["1200_b"], "1/s"),
        Figure("relay_300_b_rows_per_second", found["300_b"], "1/s"),
        Figure("relay_p50_ms", found["p50"], "ms"),
        Figure("relay_p99_ms", percentile(waits, 99), "ms"),
    ]


async def _rate(outbox: _Outbox, name: str, size_bytes: int) -> Mapping[str, float]:
    before = await outbox.acknowledged()
    committed = await outbox.put(_ROWS, size_bytes)
    return {name: _ROWS / (await outbox.until_acknowledged(before + _ROWS, look_seconds=_LOOK_SECONDS) - committed)}


async def _waits(outbox: _Outbox, waits: list[float]) -> Mapping[str, float]:
    """Milliseconds from a commit until its row was sent, answered by the broker, deleted, and that was seen here."""
    taken = []
    for _ in range(_SINGLE_ROWS):
        before = await outbox.acknowledged()
        committed = await outbox.put(1, _SIZES["1200_b"])
        taken.append((await outbox.until_acknowledged(before + 1, look_seconds=0) - committed) * 1000)
        await asyncio.sleep(_SINGLE_PAUSE_SECONDS)
    waits += taken
    return {"p50": percentile(taken, 50)}


@asynccontextmanager
async def _running_auth(runtime: Runtime, bed: Bed) -> AsyncIterator[_Outbox]:
    """Auth with a database and topics of its own, when it has published all it begins with."""
    prefix, database = runtime.new_prefix(), await service_database(runtime, auth)
    admin = runtime.administrator(prefix)
    topics = [topic for topic in TOPICS if auth.name in topic.writers | topic.readers]
    await asyncio.to_thread(bootstrap, admin, topics, {auth.name: _PASSWORD})
    url = database.url(runtime.administrator_url)
    environment = {
        "KISUM_AUTH_DATABASE_URL": url,
        "KISUM_AUTH_KAFKA_BOOTSTRAP_SERVERS": admin.bootstrap_servers,
        "KISUM_AUTH_KAFKA_USERNAME": auth.name,
        "KISUM_AUTH_KAFKA_PASSWORD": _PASSWORD,
        "KISUM_AUTH_TOPIC_PREFIX": prefix,
        "KISUM_AUTH_TOKEN_ISSUER": "benchmark",
        "KISUM_AUTH_TOKEN_AUDIENCE": "benchmark",
        "KISUM_AUTH_ROOT_PRIVATE_KEY": ROOT_KEY,
        "KISUM_AUTH_KEY_ENCRYPTION_KEY": ENCRYPTION_KEY,
    }
    port = free_port()
    async with program(
        *("cli", "serve", auth.name, "--port", str(port)), environment=environment, log=bed.folder / "auth.log"
    ):
        await wait_until(
            lambda: problem_of(f"http://127.0.0.1:{port}", auth.manifest.route_group),
            lambda problem: problem is None,
            describe="Auth is ready",
            timeout_seconds=_READY_SECONDS,
        )
        connection = await asyncpg.connect(url)
        try:
            await wait_until(
                lambda: connection.fetchval("select count(*) from outbox_states"),
                lambda pending: bool(pending == 0),
                describe="the outbox is empty",
                timeout_seconds=_READY_SECONDS,
            )
            yield _Outbox(connection)
        finally:
            await connection.close()
