import hashlib
import json
from pathlib import Path

import pytest

from infra.embedded import checks as module
from infra.embedded.checks import Check, checks
from infra.embedded.jars import JarStore
from infra.embedded.state import FORMAT, StateFolder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JarStore:
    pinned = tmp_path / "some.jars"
    pinned.write_text(f"org.example:thing:1.0 5 {hashlib.sha256(b'right').hexdigest()}\n")
    store = JarStore(pinned, tmp_path / "repository")
    monkeypatch.setattr(module, "JarStore", lambda: store)
    return store


def place(store: JarStore, content: bytes) -> None:
    folder = store.repository / "org/example/thing/1.0"
    folder.mkdir(parents=True)
    (folder / "thing-1.0.jar").write_bytes(content)


def named(found: list[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


def test_nothing_is_made_by_looking(tmp_path: Path, store: JarStore) -> None:
    found = checks(tmp_path / "home")
    assert all(check.ok for check in found), found
    assert named(found, "jars").detail.startswith("0.0 MB to download")
    assert not (tmp_path / "home").exists()
    assert not store.repository.exists()


@pytest.mark.usefixtures("store")
def test_a_parent_that_is_absent(tmp_path: Path) -> None:
    assert not named(checks(tmp_path / "absent" / "home"), "state folder").ok


@pytest.mark.usefixtures("store")
def test_a_folder_of_a_newer_version(tmp_path: Path) -> None:
    record = StateFolder.open(tmp_path / "home").path / "state.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "format": FORMAT + 1}))
    check = named(checks(tmp_path / "home"), "state folder")
    assert not check.ok
    assert "newer Kisum" in check.detail


def test_a_changed_jar(tmp_path: Path, store: JarStore) -> None:
    place(store, b"wrong")
    assert not named(checks(tmp_path / "home"), "jars").ok


def test_right_jars_a_holder_and_a_stale_pid_file(tmp_path: Path, store: JarStore) -> None:
    place(store, b"right")
    state = StateFolder.open(tmp_path / "home")
    state.pid_path("kafka").write_text('{"pid": 1, "started": "another boot"}')
    with state.exclusive():
        found = checks(state.path)
    assert all(check.ok for check in found), found
    assert "unchanged" in named(found, "jars").detail
    assert named(found, "lock").detail.startswith("held by process")
    assert "stale" in named(found, "process kafka").detail
