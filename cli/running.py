"""What `up` writes down when everything is ready, for `status`, `down` and whoever starts a second time."""

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder, write_private

_REQUEST_TIMEOUT_SECONDS: Final = 4.0
#: A proxy in the environment is for other hosts: from there, loopback is another machine.
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Part:
    """One process of services. `route_groups` maps each service in it to where its routes are."""

    name: str
    port: int
    route_groups: dict[str, str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class RunRecord:
    """A run that became ready. It holds only while its process holds the state folder."""

    pid: int
    parts: tuple[Part, ...]

    @classmethod
    def read(cls, state: StateFolder) -> "RunRecord | None":
        """The record of the run that is under way, or None where none is, or where it is not ready yet."""
        try:
            record = json.loads(_path(state).read_text())
        except FileNotFoundError:
            return None
        run = cls(pid=record["pid"], parts=tuple(Part(**part) for part in record["parts"]))
        return run if run.pid == state.holder_pid() else None

    def write(self, state: StateFolder) -> None:
        write_private(_path(state), json.dumps(asdict(self)))

    @staticmethod
    def remove(state: StateFolder) -> None:
        _path(state).unlink(missing_ok=True)

    def address_of(self, service: str) -> str:
        """Where a service answers, without its route group."""
        return next(part.address for part in self.parts if service in part.route_groups)


def _path(state: StateFolder) -> Path:
    return state.path / "run.json"


def running(state: StateFolder) -> RunRecord:
    """The run that is under way. Raises CannotStart where there is none."""
    record = RunRecord.read(state)
    if record is None:
        raise CannotStart(f"Kisum is not running in {state.path}: start it with `kisum up`")
    return record


async def problem_of(address: str, route_group: str) -> str | None:
    """Why a service is not ready, in its own words, or None when it is."""
    return await asyncio.to_thread(_ask, f"{address}{route_group}/readyz")


def _ask(url: str) -> str | None:
    try:
        with _DIRECT.open(url, timeout=_REQUEST_TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return str(json.loads(error.read())["detail"])
    except (OSError, ValueError) as error:
        return f"does not answer ({error})"


async def is_ready(part: Part) -> bool:
    """Whether every service of a process is ready."""
    problems = await asyncio.gather(*(problem_of(part.address, group) for group in part.route_groups.values()))
    return all(problem is None for problem in problems)
