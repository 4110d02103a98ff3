"""What one membership, one heartbeat and one acknowledgement cost: from these parts it is calculated how the other
figures grow (docs/performance.md).
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from access.acknowledgements import TOPIC as ACKNOWLEDGEMENTS
from access.ingest import HEARTBEAT_TOPICS, MEMBERSHIPS, STATE_TOPICS, Ingest, partitions_of
from access.path import AccessPath
from benchmarks.bed import Bed
from benchmarks.figures import Figure, medians
from benchmarks.filling import BATCH_RECORDS, filled_path, ingest
from benchmarks.reference import MembershipRecords
from contracts.envelope import decode, encode, envelop
from contracts.events.access import InstanceStatus, RecordsApplied
from contracts.events.auth import AuthHeartbeatSent
from contracts.events.entitlements import EntitlementsHeartbeatSent
from contracts.events.heartbeat import Heartbeat, Position
from contracts.identifiers import PLATFORM_COMPANY_ID, new_id
from contracts.payload import Payload

_ROUNDS: Final = 5
_RECORDS: Final = 20_000
_PEOPLE: Final = 100_000
_OFFSET: Final = 1_000_000
_TOPIC_ID: Final = "A" * 22
_HEARTBEATS: Final[Mapping[str, type[Heartbeat]]] = {
    "auth": AuthHeartbeatSent,
    "entitlements": EntitlementsHeartbeatSent,
}


async def measure(bed: Bed) -> list[Figure]:
    """Decoding with validation and without, and the store, in turn; then sizes."""
    with filled_path(bed.folder / "cache-parts", _PEOPLE) as path:
        found = await medians({"membership": partial(_membership, path, ingest())}, _ROUNDS)
    heartbeats = sum(_heartbeat_bytes(owner) for owner in HEARTBEAT_TOPICS)
    return [
        Figure("membership_record_bytes", found["bytes"], "B"),
        Figure("membership_decode_us", found["decode"], "us"),
        Figure("membership_decode_and_compile_us", found["ingest"], "us"),
        Figure("membership_store_us", found["store"], "us"),
        Figure("heartbeats_bytes_per_second", heartbeats, "B/s"),
        Figure("acknowledgement_bytes_per_second", _acknowledgement_bytes(), "B/s"),
    ]


async def _membership(path: AccessPath, decoding: Ingest) -> Mapping[str, float]:
    """Microseconds each, of the same records."""
    # Each is newer than what the cache holds.
    version = path.cache.head().generation + int(time.time())
    records = MembershipRecords(_PEOPLE, version=version)
    # Not in the order of their keys, as in a log.
    chosen = [records.of(number * 7919 % _PEOPLE) for number in range(_RECORDS)]
    payloads = STATE_TOPICS[MEMBERSHIPS].payloads
    begun = time.perf_counter()
    for record in chosen:
        decode(record.value, payloads)
    decoded = time.perf_counter()
    changes = [decoding.change_of(MEMBERSHIPS, 0, record.key, record.value) for record in chosen]
    ingested = time.perf_counter()
    for start in range(0, _RECORDS, BATCH_RECORDS):
        path.cache.apply(0, changes[start : start + BATCH_RECORDS], {})
    stored = time.perf_counter()
    each = 1e6 / _RECORDS
    return {
        "bytes": len(chosen[0].key) + len(chosen[0].value),
        "decode": (decoded - begun) * each,
        "ingest": (ingested - decoded) * each,
        "store": (stored - ingested) * each,
    }


def _positions(*owners: str) -> tuple[Position, ...]:
    return tuple(
        Position(topic=topic, topic_id=_TOPIC_ID, partition=number, next_offset=_OFFSET)
        for owner in owners
        for topic, number in partitions_of(owner)
    )


def _heartbeat_bytes(owner: str) -> int:
    now = datetime.now(UTC)
    return _bytes(
        _HEARTBEATS[owner](as_of=now, publish_counter=_OFFSET, epoch_complete=True, positions=_positions(owner))
    )


def _acknowledgement_bytes() -> int:
    now = datetime.now(UTC)
    if ACKNOWLEDGEMENTS.payloads != (RecordsApplied,):
        raise AssertionError("acknowledgements are what is told once a second")
    return _bytes(
        RecordsApplied(
            instance=str(new_id()),
            service="finance",
            status=InstanceStatus.SERVING,
            generation=1,
            generation_complete=True,
            fresh_as_of=dict.fromkeys(_HEARTBEATS, now),
            positions=_positions(*_HEARTBEATS),
            records=(),
        )
    )


def _bytes(data: Payload) -> int:
    event = envelop(
        data,
        occurred_at=datetime.now(UTC),
        company_id=PLATFORM_COMPANY_ID,
        actor_user_id=None,
        epoch=1,
        version=_OFFSET,
        correlation_id=new_id(),
    )
    return len(encode(event))
