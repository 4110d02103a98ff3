import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.embedded.child import _started as started
from infra.embedded.child import last_line, running_pid, stop_orphan


@pytest.fixture
def pid_path(tmp_path: Path) -> Path:
    return tmp_path / "some.pid"


def test_no_file_no_process(pid_path: Path) -> None:
    assert running_pid(pid_path) is None


@pytest.mark.parametrize("content", ["", "{", "{}", "12", '{"pid": "x"}', '{"pid": 1}'])
def test_an_unreadable_file_is_stale(pid_path: Path, content: str) -> None:
    pid_path.write_text(content)
    assert running_pid(pid_path) is None


def test_the_process_that_was_recorded(pid_path: Path) -> None:
    pid_path.write_text(json.dumps({"pid": os.getpid(), "started": started(os.getpid())}))
    assert running_pid(pid_path) == os.getpid()


async def test_a_number_given_to_another_process_is_not_stopped(pid_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pid_path.write_text(json.dumps({"pid": other.pid, "started": started(os.getppid())}))
        await stop_orphan(pid_path, signal.SIGTERM)
        assert other.poll() is None
        assert not pid_path.exists()
        other.kill()


async def test_an_orphan_is_stopped_even_if_it_does_not_want_to(pid_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout
        orphan.stdout.readline()
        pid_path.write_text(json.dumps({"pid": orphan.pid, "started": started(orphan.pid)}))
        await stop_orphan(pid_path, signal.SIGTERM, timeout_seconds=0.2)
        assert not psutil.pid_exists(orphan.pid)
    assert not pid_path.exists()


def test_the_last_line_that_says_something(tmp_path: Path) -> None:
    log = tmp_path / "some.log"
    assert last_line(log) == ""
    log.write_bytes(b"x" * 20_000 + b"\nthe reason\xff\n\n  \n")
    assert last_line(log) == "the reason\N{REPLACEMENT CHARACTER}"
