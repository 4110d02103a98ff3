"""`make simulate`: histories, the differential, and the planted defects, each of which must be caught.

    python -m tests.simulation --seed 8123 --histories 2000
    python -m tests.simulation --seed 8123 --histories 1 --only histories

Every history has its seed: seed, seed + 1, and so on. One that fails is shown, made smaller, and can be had alone.
"""

import argparse
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from tests.simulation.defects import Defect, DefectDoesNotApplyError, defects, planted

_ROOT: Final = Path(__file__).parents[2]
_KINDS: Final = ("histories", "differential", "defects")
#: Histories after which a line tells how a long run goes.
_PART_MAX: Final = 1000


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; 0 where all is as it should be."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the first history's; a fresh one where it is not given")
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=1_000_000, help="questions of the differential")
    parser.add_argument("--processes", type=int, default=max(1, os.cpu_count() or 1))
    parser.add_argument("--only", choices=_KINDS, default=None)
    asked = parser.parse_args(arguments)
    seed = secrets.randbelow(10**9) if asked.seed is None else asked.seed
    parts = _KINDS if asked.only is None else (asked.only,)
    _say(
        f"seed {seed}, {asked.processes} processes, {platform.machine()} with {os.cpu_count()} cores, "
        f"Python {platform.python_version()}"
    )
    begun = time.monotonic()
    failed = [
        part
        for part in parts
        if not {
            "histories": lambda: _histories(seed, asked.histories, asked.processes),
            "differential": lambda: _differential(seed, asked.pairs),
            "defects": lambda: _defects(seed, asked.histories, asked.processes),
        }[part]()
    ]
    _say(f"{'failed: ' + ', '.join(failed) if failed else 'all is as it should be'}, {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


def _histories(seed: int, count: int, processes: int) -> bool:
    begun = time.monotonic()
    ok = True
    with ThreadPoolExecutor(processes) as pool:
        for run in pool.map(lambda part: _run_histories(_ROOT, *part), _parts_of(seed, count, processes)):
            ok = ok and run.returncode == 0
            _say(f"{run.stdout}{run.stderr}".rstrip())
    _say(
        f"histories: {count} from seed {seed} in {time.monotonic() - begun:.0f} s: "
        f"{'0 over-grants, 0 differences after the final rebuild' if ok else 'FAILED'}"
    )
    return ok


def _parts_of(seed: int, count: int, processes: int) -> Iterator[tuple[int, int]]:
    each = min(-(-count // processes), _PART_MAX)
    for start in range(0, count, each):
        yield seed + start, min(each, count - start)


def _run_histories(folder: Path, seed: int, count: int, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation.run", str(seed), str(count), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # The order of sets must be the same in every run of a seed.
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def _differential(seed: int, pairs: int) -> bool:
    run = subprocess.run(
        [sys.executable, "-m", "tests.simulation.differential", "--pairs", str(pairs), "--seed", str(seed)],
        cwd=_ROOT,
        check=False,
    )
    return run.returncode == 0


def _defects(seed: int, count: int, processes: int) -> bool:
    caught = True
    with ThreadPoolExecutor(processes) as pool:
        runs: dict[Future[str | None], Defect] = {
            pool.submit(_catch, defect, seed, count): defect for defect in defects()
        }
        for run in as_completed(runs):
            found = run.result()
            caught = caught and found is not None
            _say(f"  {runs[run].name:44} {found or 'NOT CAUGHT'}")
    _say(f"defects: {len(runs)} planted, {'all caught' if caught else 'NOT ALL CAUGHT'}")
    return caught


def _catch(defect: Defect, seed: int, count: int) -> str | None:
    """How a defect was caught; None where it was not."""
    try:
        with planted(defect) as folder:
            run = _run_histories(folder, seed, count, "--until-caught")
    except DefectDoesNotApplyError as error:
        _say(str(error))
        return None
    last = (run.stdout.strip().splitlines() or [""])[-1]
    if run.returncode != 1 or not last.startswith("caught"):
        _say(f"  {defect.name}: {last or run.stderr[-300:]}")
        return None
    return last


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
