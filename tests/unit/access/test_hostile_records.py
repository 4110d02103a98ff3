"""More than 1,000 kinds of records nobody must act on: each locks its subject, and nothing else happens."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.cache import BlockPartition, Quarantine, UnblockPartition, Upsert
from access.decision import Requirement
from access.ingest import STATE_TOPICS, Ingest, heartbeat_of, partition_of, subject_key
from access.records import quarantined
from access.unknown import StateUnknownError
from contracts.envelope import encode, envelop
from contracts.events.auth import Delegation, RevokedSession, SessionsChanged
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from contracts.payload import Payload
from contracts.problems import Reason
from contracts.schema_export import EXAMPLES_FOLDER
from contracts.services import MODULES
from contracts.topics import TOPICS
from tests.harness.access import ROOT_KEY, catalog, entitled, grant, signing_key
from tests.harness.local_access import LocalAccess, local_access
from tests.unit.access.hostile import HostileRecord, hostile_records

READ: Final = Requirement.of("finance.expenses.read")
INGEST: Final = Ingest(modules=MODULES, root_key=ROOT_KEY.public_key())
SESSION: Final = new_id()
KEY: Final = Ed25519PrivateKey.generate()
TOPIC_OF: Final = {payload.event_type: topic for topic in TOPICS for payload in topic.payloads}


def payloads(access: LocalAccess) -> list[Payload]:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    return [
        grant(
            access.user_id,
            permissions={READ.key: until, "finance.expenses.write": None},
            scopes={"business_unit": (str(new_id()),), "event": "*"},
            delegations=(
                Delegation(
                    module="finance", permissions="*", scopes={"event": "*"}, may_delegate=True, valid_until=until
                ),
            ),
        ),
        entitled("finance", capabilities=("reports",), valid_until=until),
        catalog(),
        SessionsChanged(user_id=access.user_id, min_gen=3, revoked=(RevokedSession(sid=new_id(), until=until),)),
        signing_key("k1", KEY),
    ]


def record(data: Payload, access: LocalAccess, version: int) -> tuple[str, bytes, bytes]:
    topic = TOPIC_OF[data.event_type]
    of_company = topic.name in {"auth.memberships.v1", "entitlements.companies.v1"}
    envelope = envelop(
        data,
        occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
        company_id=access.company_id if of_company else PLATFORM_COMPANY_ID,
        actor_user_id=None,
        epoch=1,
        version=version,
        correlation_id=new_id(),
    )
    return topic.name, topic.record_key(envelope), encode(envelope)


def is_known(access: LocalAccess) -> dict[str, bool]:
    """Of each topic, whether what it tells of can be judged."""

    def judged(ask: Callable[[], object]) -> bool:
        try:
            return bool(ask())
        except StateUnknownError:
            return False

    decision = access.path.decide(access.company_id, access.user_id, READ, reading=True)
    assert decision.reason in {None, Reason.STATE_UNKNOWN}
    known = decision.reason is None
    return {
        "auth.memberships.v1": known,
        "entitlements.companies.v1": known,
        "auth.permissions.v1": known,
        "auth.sessions.v1": judged(lambda: access.path.session_is_live(access.user_id, SESSION, 3)),
        "auth.signing-keys.v1": judged(lambda: access.path.signing_key("k1")),
    }


@pytest.fixture
def access(tmp_path: Path) -> Iterator[LocalAccess]:
    with local_access(tmp_path / "cache") as opened:
        for data in payloads(opened):
            opened.apply(INGEST.change_of(*_placed(*record(data, opened, 1))))
        assert all(is_known(opened).values())
        yield opened


def _placed(topic: str, key: bytes, value: bytes) -> tuple[str, int, bytes, bytes]:
    return topic, partition_of(topic, key)[1], key, value


def test_each_locks_its_subject_and_changes_nothing(access: LocalAccess) -> None:
    kinds = 0
    for number, data in enumerate(payloads(access)):
        version = 2
        for hostile in hostile_records(*record(data, access, 2**30)):
            kinds += 1
            if hostile.names_its_subject:
                version += 1
                _locks_its_subject(access, hostile, record(payloads(access)[number], access, version))
            else:
                _locks_its_partition(access, hostile, record(data, access, 1)[1])
    assert kinds > 1000
    assert access.path.cache.flags() == []
    assert access.path.cache.blocks() == []


def _locks_its_subject(access: LocalAccess, hostile: HostileRecord, newer: tuple[str, bytes, bytes]) -> None:
    cache = access.path.cache
    before = dict(cache.records())
    assert hostile.key is not None
    subject = subject_key(hostile.topic, hostile.key)
    change = INGEST.change_of(hostile.topic, partition_of(hostile.topic, hostile.key)[1], hostile.key, hostile.value)
    assert isinstance(change, Quarantine), hostile.kind
    assert change.key == subject
    assert len(change.why) < 1000
    access.apply(change)
    # What was known stays as it was, under the flag.
    assert dict(cache.records()) == before | {change.key: quarantined(before[change.key])}, hostile.kind
    assert not is_known(access)[hostile.topic], hostile.kind
    access.apply(INGEST.change_of(*_placed(*newer)))
    assert is_known(access)[hostile.topic], hostile.kind


def _locks_its_partition(access: LocalAccess, hostile: HostileRecord, key: bytes) -> None:
    cache = access.path.cache
    before = dict(cache.records())
    partition = partition_of(hostile.topic, key)
    change = INGEST.change_of(*partition, hostile.key, hostile.value)
    assert change == BlockPartition(partition, hostile.key or b""), hostile.kind
    access.apply(change)
    assert dict(cache.records()) == before, hostile.kind
    assert not is_known(access)[hostile.topic], hostile.kind
    withdrawal = INGEST.change_of(*partition, hostile.key, None)
    assert isinstance(withdrawal, UnblockPartition)
    access.apply(withdrawal)
    assert is_known(access)[hostile.topic], hostile.kind


def test_somebody_elses_state_is_nobodys(access: LocalAccess) -> None:
    """A valid record under another's key, of another company, module, person or key id."""
    for number, data in enumerate(payloads(access)):
        topic, _, value = record(data, access, 2)
        mine = access.company_id, access.user_id
        access.company_id, access.user_id = CompanyId(new_id()), UserId(new_id())
        others = payloads(access)[number]
        if topic == "auth.permissions.v1":
            others = catalog("promoter")
        if topic == "auth.signing-keys.v1":
            others = signing_key("k2", KEY)
        _, key, _ = record(others, access, 2)
        access.company_id, access.user_id = mine
        change = INGEST.change_of(topic, partition_of(topic, key)[1], key, value)
        assert change == Quarantine(subject_key(topic, key) or b"", "the record's key is not that of its event")


def test_one_in_another_partition_than_its_keys_locks_that_one(access: LocalAccess) -> None:
    """What is newer of the key comes in the key's own partition: who reads both in another order must end the same."""
    kinds = 0
    for data in payloads(access):
        for hostile in hostile_records(*record(data, access, 2**30)):
            if not hostile.names_its_subject:
                continue
            kinds += 1
            assert hostile.key is not None
            own = partition_of(hostile.topic, hostile.key)[1]
            for number in {*range(STATE_TOPICS[hostile.topic].partitions)} - {own}:
                found_in = (hostile.topic, number)
                change = INGEST.change_of(*found_in, hostile.key, hostile.value)
                if hostile.value is None:
                    assert change == UnblockPartition(found_in, hostile.key)
                else:
                    assert change == BlockPartition(found_in, hostile.key), hostile.kind
                assert INGEST.change_of(*found_in, hostile.key, None) == UnblockPartition(found_in, hostile.key)
    assert kinds > 500


def test_where_a_valid_record_lies_makes_no_difference(access: LocalAccess) -> None:
    for data in payloads(access):
        topic, key, value = record(data, access, 2)
        changes = {
            type(INGEST.change_of(topic, number, key, value)) for number in range(STATE_TOPICS[topic].partitions)
        }
        assert changes == {Upsert}


@pytest.mark.parametrize("owner", ["auth", "entitlements"])
def test_a_heartbeat_nobody_can_have_counted_up_to_is_none(owner: str) -> None:
    (path,) = EXAMPLES_FOLDER.glob(f"{owner}.heartbeat-sent.v1/*.json")
    topic = f"{owner}.heartbeats.v1"
    assert topic not in STATE_TOPICS
    document = json.loads(path.read_text())
    assert heartbeat_of(owner, json.dumps(document).encode()) is not None
    for changed in ({"epoch": 1_000_001}, {"version": 2**53 + 1}, {"version": 0}, {"epoch": -1}, {"version": 2**63}):
        assert heartbeat_of(owner, json.dumps(document | changed).encode()) is None
