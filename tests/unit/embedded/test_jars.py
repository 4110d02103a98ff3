import hashlib
import socket
from pathlib import Path

import pytest

from infra.embedded.errors import CannotStart
from infra.embedded.jars import JarStore, pinned_jars

CONTENT = b"the right bytes"


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    path = tmp_path / "some.jars"
    path.write_text(f"org.example:thing:1.0:linux {len(CONTENT)} {hashlib.sha256(CONTENT).hexdigest()}\n")
    return path


@pytest.fixture
def store(pinned: Path, tmp_path: Path) -> JarStore:
    return JarStore(pinned, tmp_path / "repository")


def place(store: JarStore, pinned: Path, content: bytes) -> Path:
    path = store.path_of(pinned_jars(pinned)[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_the_pinned_jars_are_kafka_of_one_version() -> None:
    jars = pinned_jars()
    assert len({jar.coordinate for jar in jars}) == len(jars) == 46
    assert {jar.version for jar in jars if jar.group == "org.apache.kafka"} == {"4.3.1"}
    assert 40e6 < sum(jar.size_bytes for jar in jars) < 50e6


def test_a_right_jar_is_on_the_class_path(store: JarStore, pinned: Path) -> None:
    path = place(store, pinned, CONTENT)
    assert path.name == "thing-1.0-linux.jar"
    assert store.verified_class_path() == [path]
    assert store.missing_bytes() == 0


def test_a_changed_jar_of_the_same_length_is_refused(store: JarStore, pinned: Path) -> None:
    path = place(store, pinned, CONTENT[::-1])
    with pytest.raises(CannotStart) as refusal:
        store.verified_class_path()
    line = str(refusal.value)
    assert str(path) in line
    assert hashlib.sha256(CONTENT).hexdigest()[:12] in line
    assert hashlib.sha256(CONTENT[::-1]).hexdigest()[:12] in line
    assert "delete it" in line
    assert "\n" not in line


def test_a_missing_jar_is_refused_and_counted(store: JarStore) -> None:
    assert store.missing_bytes() == len(CONTENT)
    with pytest.raises(CannotStart, match="missing"):
        store.verified_class_path()


def _send_all_to(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")


def test_without_network_one_line_and_nothing_left(
    store: JarStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # bound but not listening: refused at once
        closed.bind(("127.0.0.1", 0))
        _send_all_to(closed.getsockname()[1], monkeypatch)
        with pytest.raises(CannotStart, match=r"^no network: org\.example:thing") as refusal:
            store.fetch(tmp_path / "partial")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "partial").exists()
    assert not (tmp_path / "repository").exists()
