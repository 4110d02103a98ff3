"""What an idle installation costs: `python -m benchmarks.idle [SECONDS]` beside a running `kisum up`.

Memory is the proportional set size of its processes (shared pages counted once); processor time is what all of them
used in the window, as a part of one core.
"""

import json
import sys
import threading
from typing import Final

import psutil

from cli.installation import home

_WINDOW_SECONDS: Final = 60.0
_PERCENT: Final = 100.0
_MEGABYTE: Final = 1_000_000


def _processes() -> list[psutil.Process]:
    supervisor = psutil.Process(json.loads((home() / "run.json").read_text())["pid"])
    return [supervisor, *supervisor.children(recursive=True)]


def _used_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def main() -> None:
    window_seconds = float(sys.argv[1]) if len(sys.argv) > 1 else _WINDOW_SECONDS
    processes = _processes()
    before = _used_seconds(processes)
    threading.Event().wait(window_seconds)
    used_percent = (_used_seconds(processes) - before) / window_seconds * _PERCENT
    memory = [process.memory_full_info() for process in processes]
    print(f"processes          {len(processes)}")
    print(f"resident (PSS)     {sum(each.pss for each in memory) / _MEGABYTE:.0f} MB")
    print(f"resident (RSS)     {sum(each.rss for each in memory) / _MEGABYTE:.0f} MB, shared pages counted in each")
    print(f"processor          {used_percent:.1f} % of one core over {window_seconds:g} s")


if __name__ == "__main__":
    main()
