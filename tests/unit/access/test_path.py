"""What an access path is opened for decides which cache it finds."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access import path as access_path
from access.ingest import MEMBERSHIPS, STATE_TOPICS
from access.path import AccessPath
from contracts.topics import Topic
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from tests.harness.access import ROOT_KEY, standing_clocks
from tests.harness.clock import FakeClock


def opened(folder: Path, prefix: str = "", **other: Any) -> AccessPath:
    kafka = KafkaClients(
        KafkaConnection(bootstrap_servers="127.0.0.1:1", username="nobody", password="", topic_prefix=prefix)
    )
    given: dict[str, Any] = {
        "service": "finance",
        "modules": ("finance",),
        "kafka": kafka,
        "root_key": ROOT_KEY.public_key(),
        "clocks": standing_clocks(FakeClock()),
    }
    return AccessPath.open(folder, **given | other)


def finds_it_again(folder: Path, *, prefix: str = "", **other: Any) -> bool:
    first = opened(folder)
    first.cache.apply(0, (), {(MEMBERSHIPS, 0): 7})
    first.close()
    second = opened(folder, prefix, **other)
    found = bool(second.cache.positions(0))
    second.close()
    return found


def test_the_same_finds_what_it_left(tmp_path: Path) -> None:
    assert finds_it_again(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        {"service": "ai"},
        {"modules": ("finance", "venue")},
        {"root_key": Ed25519PrivateKey.generate().public_key()},
        {"prefix": "another."},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_starts_from_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    assert not finds_it_again(tmp_path, **other)


def test_another_number_of_partitions_starts_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(tmp_path)
    first.cache.apply(0, (), {(MEMBERSHIPS, 0): 7})
    first.close()
    known = STATE_TOPICS[MEMBERSHIPS]
    more = Topic(**{**vars(known), "partitions": known.partitions + 1})
    monkeypatch.setattr(access_path, "STATE_TOPICS", {**STATE_TOPICS, MEMBERSHIPS: more})
    second = opened(tmp_path)
    assert not second.cache.positions(0)
    second.close()


def test_two_paths_that_wait_for_their_turn_are_not_ready(tmp_path: Path) -> None:
    first = opened(tmp_path)
    second = opened(tmp_path, service="ai")
    assert first.status().is_writer
    assert not second.status().is_writer
    assert not second.ready.is_ready
    second.close()
    first.close()
