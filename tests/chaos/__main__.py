"""`python -m tests.chaos [SCENARIO ...]`: hurts whole installations while they are asked, and judges every answer."""

import asyncio
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import click
import uvloop

from cli import progress
from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder
from tests.chaos.containers import containers
from tests.chaos.outcome import Outcome
from tests.chaos.replay import replay
from tests.chaos.restore import restore
from tests.chaos.topic import topic
from tests.chaos.workers import workers

SCENARIOS: Final[Mapping[str, Callable[[Path, int, float], Coroutine[Any, Any, Outcome]]]] = {
    "workers": workers,
    "restore": restore,
    "topic": topic,
    "replay": replay,
}
#: Where Docker is there, and when it is named.
IN_CONTAINERS: Final = {"containers": containers}


@click.command()
@click.argument("names", metavar="[SCENARIO]...", nargs=-1, type=click.Choice([*SCENARIOS, *IN_CONTAINERS]))
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long each hurts.")
@click.option("--seed", type=int, help="Makes the same choices again; when they come is not repeatable.")
def chaos(names: tuple[str, ...], minutes: float, seed: int | None) -> None:
    """Run these scenarios, or all, one after the other, each on an installation of its own."""
    seed = SystemRandom().randrange(2**32) if seed is None else seed
    failed = [name for name in names or SCENARIOS if not _run(name, seed, minutes)]
    sys.exit(1 if failed else 0)


def _run(name: str, seed: int, minutes: float) -> bool:
    """Whether it went as it must. Where it did not, the installation's folder is kept for its logs."""
    folder = Path(tempfile.mkdtemp(prefix=f"kisum-chaos-{name}-"))
    progress.line(f"\n{name}, seed {seed}")
    begun = time.monotonic()
    is_kept = True
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run({**SCENARIOS, **IN_CONTAINERS}[name](folder, seed, minutes))
        is_kept = bool(outcome.failures)
    except CannotStart as why:
        progress.line(f"{name}: FAILED, {why}")
        return False
    except Exception:  # noqa: BLE001  the other scenarios are run all the same
        traceback.print_exc()
        return False
    finally:
        if is_kept:
            progress.line(f"The logs are in {folder / 'logs'}")
        else:
            StateFolder.open(folder, minimum_free_bytes=0).remove()
            shutil.rmtree(folder, ignore_errors=True)
    for line in outcome.lines:
        progress.line(f"  {line}")
    for failure in outcome.failures:
        progress.line(f"  NOT {failure}")
    progress.line(f"{name}: {'as it must be' if not outcome.failures else 'FAILED'}, {time.monotonic() - begun:.0f} s")
    return not outcome.failures


if __name__ == "__main__":
    chaos()
