"""What `up` writes down when its services run, for `status`, `down` and whoever starts a second time."""

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder, write_private

#: What `up` ends with where everything runs and something is not ready. With 1 the start failed, and nothing runs.
NOT_READY_STATUS: Final = 3
_REQUEST_TIMEOUT_SECONDS: Final = 4.0
#: A proxy in the environment is for other hosts: from there, loopback is another machine.
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Part:
    """One process of services. `route_groups` maps each service in it to where its routes are."""

    name: str
    port: int
    metrics_port: int
    route_groups: dict[str, str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def metrics_address(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"


@dataclass(frozen=True)
class RunRecord:
    """A run whose services answer. It holds only while its process holds the state folder.

    :ivar was_ready: whether every service was ready when `up` had waited for it.
    """

    pid: int
    parts: tuple[Part, ...]
    was_ready: bool

    @classmethod
    def read(cls, state: StateFolder) -> "RunRecord | None":
        """The record of the run that is under way, or None where none is, or where it is starting."""
        try:
            record = json.loads(_path(state).read_text())
        except FileNotFoundError:
            return None
        if record["pid"] != state.holder_pid():
            return None  # left behind by a run that was killed
        return cls(
            pid=record["pid"], parts=tuple(Part(**part) for part in record["parts"]), was_ready=record["was_ready"]
        )

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
        try:
            with _DIRECT.open(url, timeout=_REQUEST_TIMEOUT_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            with error:
                return str(json.load(error)["detail"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return f"does not answer ({error})"


async def problems_of(parts: Iterable[Part]) -> dict[str, str | None]:
    """Each service with why it is not ready, or None."""
    asked = [(service, part.address, group) for part in parts for service, group in part.route_groups.items()]
    answers = await asyncio.gather(*(problem_of(address, group) for _, address, group in asked))
    return {service: answer for (service, _, _), answer in zip(asked, answers, strict=True)}


async def is_living(part: Part) -> bool:
    """Whether every service of a process answers, ready or not."""
    groups = part.route_groups.values()
    answers = await asyncio.gather(*(asyncio.to_thread(_ask, f"{part.address}{group}/livez") for group in groups))
    return all(answer is None for answer in answers)
