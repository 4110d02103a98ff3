"""`kisum serve --workers`, `kisum cache` and `kisum replay`, each a process of its own, on a service that runs."""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest_asyncio

from access.cache import Cache
from access.folder import holder_of
from access.ingest import MEMBERSHIPS
from access.records import compile_membership, membership_key
from contracts.identifiers import UserId, new_id
from infra.embedded.state import is_free
from infra.tasks import end_tasks
from services.finance.app import service
from tests.harness.access import ROOT_KEY, Sources, grant
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.harness.waiting import wait_until
from tests.integration.access.asking import publish_allowed

_WORKERS = 2
_CONNECTIONS = 16


@dataclass
class Commands:
    """Runs `kisum` against a service whose settings are in the environment, as in a container."""

    sources: Sources
    environment: dict[str, str]
    folder: Path

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", *arguments),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> tuple[int, str]:
        """The exit status and everything that was said to people."""
        process = await self.start(*arguments)
        out, errors = await process.communicate()
        assert process.returncode is not None
        said = [line for line in errors.decode().splitlines() if not line.startswith("{")]
        return process.returncode, out.decode() + "\n".join(said)


def _is_worker(child: psutil.Process) -> bool:
    """Neither dead nor what multiprocessing starts for itself."""
    try:
        return "resource_tracker" not in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return False


def _is_connected(worker: psutil.Process) -> bool:
    """Whether a client is: what else a worker is connected to, it has connected to itself."""
    try:
        connections = worker.net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    listening = {each.laddr for each in connections if each.status == psutil.CONN_LISTEN}
    return any(each.laddr in listening and each.status == psutil.CONN_ESTABLISHED for each in connections)


@dataclass
class Served:
    """Finance, served by several processes on one port."""

    process: asyncio.subprocess.Process
    url: str
    metrics_urls: list[str]
    commands: Commands
    #: What was left behind when the parent was killed.
    orphans: list[psutil.Process] = field(default_factory=list)

    def workers(self) -> list[psutil.Process]:
        try:
            return [child for child in psutil.Process(self.process.pid).children() if _is_worker(child)]
        except psutil.NoSuchProcess:
            return []

    async def status(self) -> int | str:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                return (await client.get(f"{self.url}/api/finance/readyz")).status_code
            except httpx.TransportError as error:
                return type(error).__name__

    async def answering(self) -> set[int]:
        """The workers that took up some of many connections at once; each stays with who took it up."""
        async with httpx.AsyncClient(trust_env=False) as client:
            asked = (client.get(f"{self.url}/api/finance/livez") for _ in range(_CONNECTIONS))
            answers = await asyncio.gather(*asked, return_exceptions=True)
            if any(isinstance(answer, Exception) for answer in answers):
                return set()
            return {worker.pid for worker in self.workers() if _is_connected(worker)}

    async def measured(self) -> list[bool]:
        """Whether each port for metrics tells of an instance that is ready."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answers = await asyncio.gather(*map(client.get, self.metrics_urls), return_exceptions=True)
        ready = 'kisum_access_ready{service="finance"} 1.0'
        return [isinstance(answer, httpx.Response) and ready in answer.text for answer in answers]

    async def until(self, status: int | str, describe: str) -> None:
        await wait_until(self.status, lambda found: found == status, describe=describe)


def _free_ports(count: int) -> range:
    """Adjacent ones, below those that are given to outgoing connections."""
    runs = (range(first, first + count) for first in range(20_000 + os.getpid() % 10_000, 32_000))
    return next(ports for ports in runs if all(map(is_free, ports)))


async def _beat(sources: Sources) -> None:
    """As the owners do, twice a second."""
    while True:
        await sources.beat()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.Event().wait()


@pytest_asyncio.fixture
async def commands(runtime: Runtime, sources: Sources, tmp_path: Path) -> Commands:
    database = await service_database(runtime, service)
    public = base64.urlsafe_b64encode(ROOT_KEY.public_key().public_bytes_raw()).rstrip(b"=").decode()
    settings = {
        "DATABASE_URL": database.url(runtime.administrator_url),
        "KAFKA_BOOTSTRAP_SERVERS": sources.kafka.bootstrap_servers,
        "KAFKA_USERNAME": sources.kafka.username,
        "KAFKA_PASSWORD": sources.kafka.password,
        "TOPIC_PREFIX": sources.kafka.topic_prefix,
        "TOKEN_ISSUER": "test",
        "TOKEN_AUDIENCE": "kisum",
        "ROOT_PUBLIC_KEY": public,
        "ACCESS_FOLDER": str(tmp_path / "access"),
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith("KISUM_")}
    environment = own | {f"KISUM_FINANCE_{name}": value for name, value in settings.items()}
    environment["KISUM_FINANCE_FILES_URL"] = (tmp_path / "files").as_uri()
    return Commands(sources, environment | {"KISUM_HOME": str(tmp_path / "none")}, tmp_path / "access")


@pytest_asyncio.fixture
async def served(commands: Commands) -> AsyncIterator[Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    metrics_ports = _free_ports(_WORKERS)
    await publish_allowed(commands.sources)
    process = await commands.start(
        *("serve", "finance", "--port", str(port), "--workers", str(_WORKERS)),
        *("--metrics-port", str(metrics_ports[0])),
    )
    metrics_urls = [f"http://127.0.0.1:{each}/metrics" for each in metrics_ports]
    found = Served(process, f"http://127.0.0.1:{port}", metrics_urls, commands)
    reading = asyncio.create_task(process.communicate())
    beating = asyncio.create_task(_beat(commands.sources))
    try:
        await found.until(200, "finance is ready")
        yield found
    finally:
        workers = found.workers()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait({reading}, timeout=10)
        for worker in [*workers, *found.orphans]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        await reading
        await end_tasks(beating)


async def test_workers_share_a_port_and_a_cache_and_end_with_their_parent(served: Served) -> None:
    folder = served.commands.folder
    for _ in range(2):
        found = await wait_until(served.answering, lambda pids: len(pids) == _WORKERS, describe="all workers answer")
        killed = holder_of(folder).pid
        assert killed in found
        os.kill(killed, signal.SIGKILL)

        async def others(killed: int = killed) -> bool:
            holder = holder_of(folder)
            return holder.is_writing and holder.pid != killed

        await wait_until(others, bool, describe="another one writes")
        await served.until(200, "finance is ready")
        await wait_until(
            served.measured, all, describe="each worker tells of itself, a successor where the dead one did"
        )
    status, said = await served.commands.run("cache", "status", "finance")
    assert (status, "finance is ready" in said, f"process {holder_of(folder).pid}" in said) == (0, True, True)
    served.orphans = served.workers()
    os.kill(served.process.pid, signal.SIGKILL)

    async def alive() -> list[psutil.Process]:
        return [worker for worker in served.orphans if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]

    await wait_until(alive, lambda left: not left, describe="no worker is left")
    await served.until("ConnectError", "nobody listens")


async def test_an_operator_looks_compares_and_rebuilds(served: Served) -> None:
    commands, sources = served.commands, served.commands.sources
    assert await commands.run("cache", "quarantine", "finance") == (0, "Nothing is in quarantine in finance.\n")
    equal = (0, "equal: the cache of finance holds what the log says of 3 subjects\n")
    assert await commands.run("cache", "verify", "finance") == equal
    poisoned = f"{sources.company_id}/{new_id()}"
    await sources.send_raw(MEMBERSHIPS, poisoned.encode(), b"{")
    await sources.send_raw(MEMBERSHIPS, b"\xff", b"{", partition=5)
    live = Cache.open_in_use(commands.folder)
    try:

        async def quarantined() -> tuple[int, int]:
            return len(live.flags()), len(live.blocks())

        await wait_until(quarantined, lambda found: found == (1, 1), describe="both are in quarantine")
        status, said = await commands.run("cache", "quarantine", "finance")
        assert status == 0
        assert f"membership   {poisoned}  MalformedEventError" in said
        assert "partition    auth.memberships.v1/5  the key b'\\xff' names nobody" in said
        assert (await commands.run("cache", "verify", "finance"))[0] == 0
        _tamper(live, sources)
        status, said = await commands.run("cache", "verify", "finance")
        assert status == 1
        assert "1 of 4 subjects differ" in said
        assert f"membership   {sources.company_id}/{sources.user_id}  (1, 1)  (1, 1)" in said
        status, said = await commands.run("replay", "finance")
        assert status == 0
        assert "generation 2 decides now" in said
        assert (await commands.run("cache", "verify", "finance"))[0] == 0
        assert len(live.flags()) == len(live.blocks()) == 1
    finally:
        live.close()


def _tamper(cache: Cache, sources: Sources) -> None:
    """What a bit that fell over in a file does: the same version, and more than was granted."""
    key = membership_key(sources.company_id, sources.user_id)
    more = grant(UserId(sources.user_id), permissions=("finance.expenses.read", "finance.expenses.approve"))
    with cache._environment.begin(write=True, db=cache._generations[cache.head().active]) as transaction:
        transaction.put(key, compile_membership(more, 1, 1, ("finance",)))


async def test_without_a_service_or_a_cache_it_says_so_in_one_line(commands: Commands) -> None:
    nowhere = f"kisum: finance has no cache in {commands.folder}: it never ran here"
    looking, judging = (("cache", "status", "finance"), ("cache", "verify", "finance")), ("cache", "quarantine", "auth")
    said = await asyncio.gather(*(commands.run(*command) for command in (*looking, judging)))
    assert said == [(1, nowhere), (1, nowhere), (1, "kisum: auth has no access cache: it judges by its own rows")]
    Cache.open(commands.folder, boot_id="a boot").close()
    dead = "kisum: finance is not running: nobody follows the log for its cache"
    left_behind = (("cache", "verify", "finance"), ("replay", "finance"), ("cache", "status", "finance"))
    verified, replayed, status = await asyncio.gather(*(commands.run(*command) for command in left_behind))
    assert verified == replayed == (1, dead)
    assert status[0] == 1
    assert "finance is not ready: this instance is still loading the access state" in status[1]
    assert "nobody: the service does not run" in status[1]
