"""A cache that is filled without Kafka: every record goes the way it goes in a feed, from its bytes to the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from access.cache import Change, Head
from access.freshness import OWNERS, Clocks, OwnerFreshness
from access.ingest import COMPANIES, MEMBERSHIPS, PERMISSIONS, Ingest
from access.path import AccessPath
from benchmarks.reference import MODULE, MembershipRecords, company_ids
from contracts.envelope import encode, envelop
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, new_id
from contracts.payload import Payload
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from tests.harness.access import ROOT_KEY, catalog, entitled

#: As the feed does while nobody can be served.
BATCH_RECORDS: Final = 2000
_NOWHERE: Final = KafkaConnection(bootstrap_servers="127.0.0.1:1", username="nobody", password="")


@contextmanager
def filled_path(folder: Path, people: int) -> Iterator[AccessPath]:
    """An access path that knows so many people and is fresh now."""
    path = AccessPath.open(
        folder, service=MODULE, modules=(MODULE,), kafka=KafkaClients(_NOWHERE), root_key=ROOT_KEY.public_key()
    )
    try:
        changes = iter(_changes(people))
        while batch := list(islice(changes, BATCH_RECORDS)):
            path.cache.apply(0, batch, {})
        freshen(path)
        yield path
    finally:
        path.close()


def freshen(path: AccessPath) -> None:
    """As after a heartbeat of both owners."""
    clocks = Clocks.of()
    owner = OwnerFreshness(
        as_of=clocks.wall_us(), lag=0, received_wall=clocks.wall_us(), received_boot=clocks.boot_us()
    )

    def revise(head: Head) -> Head:
        return replace(head, complete=True, owners=tuple(owner for _ in OWNERS))

    path.cache.apply(0, (), {}, revise)


def ingest() -> Ingest:
    """What the module's feed decodes with."""
    return Ingest(modules=(MODULE,), root_key=ROOT_KEY.public_key())


def _changes(people: int) -> Iterator[Change]:
    decoding = ingest()
    yield _change(decoding, PERMISSIONS, catalog(MODULE), PLATFORM_COMPANY_ID)
    for company_id in company_ids(people):
        yield _change(decoding, COMPANIES, entitled(MODULE, base="venue"), company_id)
    records = MembershipRecords(people)
    for number in range(people):
        record = records.of(number)
        yield decoding.change_of(MEMBERSHIPS, 0, record.key, record.value)


def _change(decoding: Ingest, topic: str, state: Payload, company_id: CompanyId) -> Change:
    event = envelop(
        state,
        occurred_at=datetime(2026, 5, 21, 9, tzinfo=UTC),
        company_id=company_id,
        actor_user_id=None,
        epoch=1,
        version=1,
        correlation_id=new_id(),
    )
    return decoding.change_of(topic, 0, state.aggregate_id(company_id).encode(), encode(event))
