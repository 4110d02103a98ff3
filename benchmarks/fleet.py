"""Thirteen instances that follow the log: those of an installation's services, and more of one module.

Design §9 counts thirteen services. Until all are there, further instances of Finance stand for the others: they
are `kisum serve finance` with a cache of their own, and run the same feed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.programs import program
from chassis.settings import AccessSettings
from cli import progress
from cli.demo.system import Processes
from cli.demo.waiting import wait_until
from cli.installation import Installation
from cli.registry import load
from cli.running import problem_of
from infra.embedded.child import running_pid

INSTANCES: Final = 13
_MODULE: Final = "finance"
_READY_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Fleet:
    """`addresses` are those of every instance of the module; `processes` of all thirteen, by name."""

    system: Processes
    addresses: tuple[str, ...]
    processes: dict[str, int]


def instances_of(system: Processes) -> list[str]:
    """The services of an installation that follow the log."""
    names = [part.name for part in system.record.parts]
    return [name for name, service in load(names).items() if issubclass(service.settings, AccessSettings)]


@asynccontextmanager
async def fleet(system: Processes) -> AsyncIterator[Fleet]:
    """Start what is missing to thirteen."""
    present = instances_of(system)
    module, installation = load([_MODULE])[_MODULE], Installation(system.state)
    group = module.manifest.route_group
    async with AsyncExitStack() as stack:
        processes = {name: running_pid(system.state.pid_path(f"service-{name}")) or 0 for name in present}
        addresses = [system.record.address_of(_MODULE)]
        with progress.step(f"{INSTANCES} instances"):
            for number in range(len(present), INSTANCES):
                port = system.state.port(f"benchmark-{number}")
                address, name = f"http://127.0.0.1:{port}", f"{_MODULE}-{number}"
                environment = installation.environment(module, address)
                environment["KISUM_FINANCE_ACCESS_FOLDER"] = str(system.state.folder("access") / name)
                process = await stack.enter_async_context(
                    program(
                        *("cli", "serve", _MODULE, "--port", str(port)),
                        environment=environment,
                        log=system.state.log_path(f"service-{name}"),
                    )
                )
                addresses.append(address)
                processes[name] = process.pid
            await asyncio.gather(*(_until_ready(address, group) for address in addresses))
        yield Fleet(system, tuple(f"{address}{group}" for address in addresses), processes)


async def _until_ready(address: str, route_group: str) -> None:
    await wait_until(
        lambda: problem_of(address, route_group),
        lambda problem: problem is None,
        describe=f"{address} is ready",
        timeout_seconds=_READY_SECONDS,
    )
