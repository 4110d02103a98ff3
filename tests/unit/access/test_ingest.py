"""What a record on an access topic does to the cache."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.cache import BlockPartition, Quarantine, UnblockPartition, Upsert
from access.ingest import (
    MEMBERSHIPS,
    PERMISSIONS,
    SESSIONS,
    SIGNING_KEYS,
    STATE_TOPICS,
    Ingest,
    heartbeat_of,
    partition_of,
)
from access.records import Membership, membership_key, permissions_key, sessions_key, signing_key_key
from contracts.envelope import decode, encode, envelop
from contracts.events.auth import SessionsChanged
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from contracts.payload import Payload
from contracts.schema_export import EXAMPLES_FOLDER
from contracts.topics import TOPICS
from infra.outbox.store import Row
from infra.outbox.unknown import unknown_state_of
from tests.harness.access import ROOT_KEY, catalog, grant, signing_key
from tests.harness.clock import FakeClock

INGEST = Ingest(modules=("finance",), root_key=ROOT_KEY.public_key())
COMPANY, USER = CompanyId(new_id()), UserId(new_id())
KEY = f"{COMPANY}/{USER}".encode()


def record(data: Payload, company_id: CompanyId = COMPANY) -> bytes:
    return encode(
        envelop(
            data,
            occurred_at=FakeClock()(),
            company_id=company_id,
            actor_user_id=None,
            epoch=1,
            version=1,
            correlation_id=new_id(),
        )
    )


def test_a_state_is_applied_under_its_subject() -> None:
    change = INGEST.change_of(MEMBERSHIPS, 0, KEY, record(grant(USER)))
    assert isinstance(change, Upsert)
    assert (change.key, change.epoch, change.version) == (membership_key(COMPANY, USER), 1, 1)
    assert [module for module, _ in Membership(change.record).modules()] == ["finance"]


@pytest.mark.parametrize(
    "of_other", [{"company_id": CompanyId(new_id())}, {"user_id": new_id()}], ids=lambda of: next(iter(of))
)
def test_a_state_under_anothers_key_is_applied_to_nobody(of_other: dict[str, Any]) -> None:
    value = record(grant(of_other.get("user_id", USER)), of_other.get("company_id", COMPANY))
    change = INGEST.change_of(*partition_of(MEMBERSHIPS, KEY), KEY, value)
    assert isinstance(change, Quarantine)
    assert change.key == membership_key(COMPANY, USER)


def test_a_tombstone_of_a_subject_is_not_accepted() -> None:
    assert isinstance(INGEST.change_of(*partition_of(MEMBERSHIPS, KEY), KEY, None), Quarantine)


def test_what_an_owner_says_in_place_of_a_refused_state_is_of_its_revision() -> None:
    person = str(USER)
    state = record(SessionsChanged(user_id=USER, min_gen=3, revoked=()), PLATFORM_COMPANY_ID)
    withheld = unknown_state_of(Row(SESSIONS, person, state, ())).value
    change = INGEST.change_of(*partition_of(SESSIONS, person.encode()), person.encode(), withheld)
    assert change == Quarantine(sessions_key(USER), "the log refused its state", stands_for=(1, 1))


@pytest.mark.parametrize("key", [None, b"", b"\xff", KEY.upper(), KEY + b"/", str(COMPANY).encode()])
def test_a_key_that_names_nobody_blocks_its_partition_until_withdrawn(key: bytes | None) -> None:
    value = record(grant(USER))
    assert INGEST.change_of(MEMBERSHIPS, 4, key, value) == BlockPartition((MEMBERSHIPS, 4), key or b"")
    assert INGEST.change_of(MEMBERSHIPS, 4, key, None) == UnblockPartition((MEMBERSHIPS, 4), key or b"")


def test_a_signing_key_counts_only_under_the_root_key() -> None:
    key, other_root = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    good = INGEST.change_of(SIGNING_KEYS, 0, b"k1", record(signing_key("k1", key), PLATFORM_COMPANY_ID))
    assert isinstance(good, Upsert)
    forged = signing_key("k1", key, root=other_root)
    changed = signing_key("k1", key).model_copy(update={"public_key": signing_key("k1", other_root).public_key})
    for data in (forged, changed):
        change = INGEST.change_of(SIGNING_KEYS, 0, b"k1", record(data, PLATFORM_COMPANY_ID))
        assert isinstance(change, Quarantine)
        assert change.key == signing_key_key("k1")


def test_a_module_added_later_stops_nobody() -> None:
    data = catalog().model_copy(update={"module": "later"})
    change = INGEST.change_of(PERMISSIONS, 0, b"later", record(data, PLATFORM_COMPANY_ID))
    assert isinstance(change, Upsert)
    assert change.key == permissions_key("later")


def _examples() -> list[Path]:
    types = {name for topic in STATE_TOPICS.values() for name in topic.event_types}
    return sorted(path for path in EXAMPLES_FOLDER.glob("*/*.json") if path.parent.name in types)


@pytest.mark.parametrize("path", _examples(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_golden_example_is_read(path: Path) -> None:
    topic = next(topic for topic in TOPICS if path.parent.name in topic.event_types)
    envelope = decode(path.read_bytes(), topic.payloads)
    change = INGEST.change_of(topic.name, 0, topic.record_key(envelope), path.read_bytes())
    if topic.name == SIGNING_KEYS:
        # Their signatures are made up, so that nobody has the key that made them.
        assert isinstance(change, Quarantine)
        assert "root key" in change.why
    else:
        assert isinstance(change, Upsert), change


@pytest.mark.parametrize("owner", ["auth", "entitlements"])
def test_a_heartbeat_that_cannot_be_read_proves_nothing(owner: str) -> None:
    (path,) = EXAMPLES_FOLDER.glob(f"{owner}.heartbeat-sent.v1/*.json")
    found = heartbeat_of(owner, path.read_bytes())
    assert found is not None
    assert found.version > 0
    other = "auth" if owner == "entitlements" else "entitlements"
    assert [heartbeat_of(*each) for each in ((owner, None), (owner, b"{}"), (other, path.read_bytes()))] == [None] * 3


def test_partitions_are_those_of_the_producers() -> None:
    """The hashes are those of Kafka's own test of its murmur2."""
    assert partition_of("auth.sessions.v1", b"21")[1] == (-973932308 & 0x7FFFFFFF) % 2
    assert partition_of("auth.memberships.v1", b"foobar")[1] == (-790332482 & 0x7FFFFFFF) % 6
