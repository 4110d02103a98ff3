import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra.embedded.errors import AlreadyHeld, CannotStart
from infra.embedded.state import FORMAT, StateFolder

AS_NOBODY = 65534


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def one_line(refusal: pytest.ExceptionInfo[CannotStart]) -> str:
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    before = mode_of(tmp_path)
    old_mask = os.umask(0)
    try:
        state = StateFolder.open(tmp_path / "home")
        state.secret("a")
        state.port("a")
        state.log_path("a")
        state.pid_path("a")
        with state.exclusive():
            pass
    finally:
        os.umask(old_mask)
    for path in [state.path, *state.path.rglob("*")]:
        assert mode_of(path) == (0o700 if path.is_dir() else 0o600), path
    assert mode_of(tmp_path) == before


def test_a_folder_that_others_may_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o755)
    assert mode_of(StateFolder.open(tmp_path / "home").path) == 0o700


def test_secrets_and_ports_are_the_same_after_a_restart(tmp_path: Path) -> None:
    first = StateFolder.open(tmp_path / "home")
    secret, port = first.secret("a"), first.port("a")
    assert first.secret("b") != secret
    assert len(secret) >= 43  # 256 bits
    again = StateFolder.open(tmp_path / "home")
    assert (again.secret("a"), again.port("a"), again.identity) == (secret, port, first.identity)
    assert again.port("b") != port


def test_a_recorded_port_that_is_taken_is_given_up_only_by_who_starts(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "home")
    port = state.free_port("a")
    assert state.free_port("a") == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert state.port("a") == port
        new = state.free_port("a")
    assert new != port
    assert StateFolder.open(state.path).port("a") == new


def test_a_folder_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "home")
    record = state.path / "state.json"
    newer = json.dumps({**json.loads(record.read_text()), "format": FORMAT + 1})
    record.write_text(newer)
    with pytest.raises(CannotStart) as refusal:
        StateFolder.open(state.path)
    assert "newer Kisum" in one_line(refusal)
    assert record.read_text() == newer


def test_a_broken_record_is_refused(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "home")
    (state.path / "state.json").write_text("{")
    with pytest.raises(CannotStart) as refusal:
        StateFolder.open(state.path)
    assert "state.json" in one_line(refusal)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter").touch()
    with pytest.raises(CannotStart) as refusal:
        StateFolder.open(tmp_path)
    assert "not Kisum's" in one_line(refusal)


def test_a_missing_parent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotStart) as refusal:
        StateFolder.open(tmp_path / "absent" / "home")
    assert "does not exist" in one_line(refusal)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(CannotStart) as refusal:
        StateFolder.open(tmp_path / "home")
    assert "not a folder" in one_line(refusal)


def test_too_little_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotStart) as refusal:
        StateFolder.open(tmp_path / "home", minimum_free_bytes=1 << 60)
    assert "free disk" in one_line(refusal)


def _open_as_nobody(path: Path, answers: "multiprocessing.SimpleQueue[str]") -> None:
    os.setuid(AS_NOBODY)
    try:
        StateFolder.open(path)
    except CannotStart as refusal:
        answers.put(str(refusal))
    else:
        answers.put("opened")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("existing", "reason"), [(False, "cannot be made"), (True, "belongs to user id 0")])
def test_a_folder_one_may_not_write_is_refused(tmp_path: Path, existing: bool, reason: str) -> None:  # noqa: FBT001
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    if existing:
        StateFolder.open(tmp_path / "home")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=_open_as_nobody, args=(tmp_path / "home", answers))
    process.start()
    answer = answers.get()
    process.join()
    assert reason in answer


HOLD = """
import sys
from pathlib import Path
from infra.embedded.state import StateFolder
with StateFolder.open(Path(sys.argv[1])).exclusive():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_holder_at_a_time_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "home")
    assert state.holder_pid() is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, state.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert state.holder_pid() == holder.pid
        with pytest.raises(AlreadyHeld) as refusal, state.exclusive():
            pass
        assert refusal.value.pid == holder.pid
        with pytest.raises(AlreadyHeld):
            state.remove()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    # The dead process's number is still in the file.
    assert (state.path / "lock").read_text() == str(holder.pid)
    assert state.holder_pid() is None
    with state.exclusive():
        assert state.holder_pid() == os.getpid()


def test_removal_takes_nothing_that_is_not_ours(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "home")
    precious = tmp_path / "precious"
    precious.mkdir()
    state.record_outside("postgres", precious)
    with pytest.raises(CannotStart):
        state.remove()
    assert precious.exists()
    assert state.path.exists()


def test_removal_leaves_nothing(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "home")
    state.secret("a")
    state.remove()
    assert not state.path.exists()
