"""The story's installation as docker-compose.yml has it: asked through the gateway, hurt with `docker compose`."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from access.digest import Document
from cli import progress
from cli.demo.proof import Proof
from cli.deploy import make_deployment
from cli.registry import load, service_names
from cli.running import problem_of
from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder, write_private

_ROOT: Final = Path(__file__).parents[2]
_PROJECT: Final = "kisum-demo"
_READY_SECONDS: Final = 240
_LOG_LINES: Final = 5
_ACCESS_FOLDER: Final = "/var/lib/kisum/access"
_PROOF: Final = ("/opt/kisum/bin/python", "-P", "-m", "cli.demo.proof")


@dataclass(frozen=True)
class Containers:
    """A run of docker-compose.yml."""

    state: StateFolder
    #: The files `docker compose` reads, as arguments.
    files: tuple[str, ...]
    _ended: set[str] = field(default_factory=set)

    def url(self, service: str, path: str) -> str:
        return f"{self._gateway}{_route_group(service)}{path}"

    @asynccontextmanager
    async def database(self, service: str) -> AsyncIterator[asyncpg.Connection]:
        password, port = self.state.secret("postgres-superuser"), self.state.port("postgres")
        connection = await asyncpg.connect(f"postgresql://kisum:{password}@127.0.0.1:{port}/{service}")
        try:
            yield connection
        finally:
            await connection.close()

    async def kill(self, *services: str) -> None:
        # What was killed by hand is not started again by itself.
        await self.compose("kill", *services)
        self._ended.update(services)

    async def lose_cache(self, service: str) -> None:
        await self.compose("rm", "--stop", "--force", "--volumes", service)
        self._ended.add(service)

    async def resume(self) -> None:
        await self.compose("up", "--detach", "--no-deps", "--no-build", *sorted(self._ended))
        self._ended.clear()

    async def healthy(self, name: str) -> None:
        """Wait until what is there of a container is healthy. Raises CannotStart."""
        await self.compose("up", "--detach", "--no-deps", "--no-build", "--no-recreate", "--wait", name)

    async def problem_of(self, service: str) -> str | None:
        return await problem_of(self._gateway, _route_group(service))

    async def prove(self, rows: Mapping[tuple[str, str], Document], *, module: str, member: tuple[UUID, UUID]) -> Proof:
        asked = {
            "folder": _ACCESS_FOLDER,
            "module": module,
            "member": [str(each) for each in member],
            "rows": [[kind, key, document] for (kind, key), document in rows.items()],
        }
        answer = json.loads(await self.compose("exec", "--no-TTY", module, *_PROOF, given=json.dumps(asked)))
        return Proof(
            subjects=answer["subjects"],
            digest=answer["digest"],
            differing=[(kind, key) for kind, key in answer["differing"]],
            differing_when_flipped=[(kind, key) for kind, key in answer["differing_when_flipped"]],
        )

    async def compose(self, *arguments: str, given: str = "") -> str:
        """Run `docker compose` on this installation; what it printed. Raises CannotStart with its last line."""
        process = await asyncio.create_subprocess_exec(
            *("docker", "compose", "--progress", "quiet", *self.files, *arguments),
            cwd=_ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Ctrl-C is for the demo, which then stops what it started.
            start_new_session=True,
        )
        printed, errors = await asyncio.shield(process.communicate(given.encode()))
        if process.returncode != 0:
            last = errors.decode().strip().rpartition("\n")[2]
            raise CannotStart(f"`docker compose {arguments[0]}` failed ({process.returncode}): {last}")
        return printed.decode()

    @property
    def _gateway(self) -> str:
        return f"http://127.0.0.1:{self.state.port('gateway')}"


@asynccontextmanager
async def running_containers(folder: Path, settings: Mapping[str, str], *, cluster: bool) -> AsyncIterator[Containers]:
    """docker-compose.yml under a name of its own, from nothing to healthy; at the end nothing of it is left.

    `settings` are environment variables of services that infra/deploy/demo.yml passes on. Raises CannotStart.
    """
    if shutil.which("docker") is None:
        raise CannotStart("docker is not there: `kisum demo` needs none")
    state = StateFolder.open(folder)
    gateway, postgres, prometheus = (state.free_port(name) for name in ("gateway", "postgres", "prometheus"))
    chosen = folder / "compose.env"
    chosen.unlink(missing_ok=True)
    make_deployment(folder, chosen, cluster=cluster, port=gateway)
    given = {
        **settings,
        "COMPOSE_PROJECT_NAME": _PROJECT,
        "KISUM_DEMO_POSTGRES_PORT": str(postgres),
        "KISUM_PROMETHEUS_PORT": str(prometheus),
    }
    write_private(chosen, chosen.read_text() + "".join(f"{name}={value}\n" for name, value in given.items()))
    files = ("--env-file", str(chosen), "--file", "docker-compose.yml", "--file", "infra/deploy/demo.yml")
    system = Containers(state, files)
    try:
        # What an interrupted run left has other passwords.
        await system.compose("down", "--volumes", "--timeout", "10")
        await _start(system)
        yield system
    finally:
        progress.line("docker compose down")
        await asyncio.shield(system.compose("down", "--volumes", "--timeout", "10"))
        system.state.remove()


async def _start(system: Containers) -> None:
    with progress.step("docker compose up --build --wait", "healthy"):
        try:
            await system.compose("up", "--build", "--detach", "--wait", "--wait-timeout", str(_READY_SECONDS))
        except CannotStart:
            # What could say why is about to be removed.
            progress.line(await system.compose("logs", "--no-color", "--tail", str(_LOG_LINES), *service_names()))
            raise


def _route_group(service: str) -> str:
    return load([service])[service].manifest.route_group
