"""A reader of the memberships, by the rules of the access cache."""

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.cache import BlockPartition, Quarantine, UnblockPartition, Upsert
from access.ingest import Ingest
from infra.kafka.partitioner import partition_of
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import MEMBERSHIPS, Owner, key_of, record_of

INGEST = Ingest(modules=("finance",), root_key=Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())


class Reader:
    """What a reader of the topic holds, by the rules of the access cache."""

    def __init__(self) -> None:
        self.states: dict[bytes, tuple[int, int, bytes]] = {}
        self.quarantined: set[bytes] = set()
        self.blocked: set[tuple[int, bytes]] = set()

    @classmethod
    async def of(
        cls, owner: Owner, *, begins: Mapping[int, int] | None = None, ends: Mapping[int, int] | None = None
    ) -> "Reader":
        """After all that is in the log, or between these offsets, by partition."""
        reader = cls()
        for record in await owner.log_of(MEMBERSHIPS.name):
            begin = (begins or {}).get(record.partition, 0)
            end = (ends or {}).get(record.partition, record.offset + 1)
            if begin <= record.offset < end:
                reader.read(record)
        return reader

    def read(self, record: Any) -> None:
        match INGEST.change_of(MEMBERSHIPS.name, record.partition, record.key, record.value):
            case Upsert(key, epoch, version, compiled):
                if (epoch, version) > self.states.get(key, (0, 0))[:2]:
                    self.states[key] = epoch, version, compiled
                    self.quarantined.discard(key)
            case Quarantine(key):
                self.quarantined.add(key)
            case BlockPartition((_, partition), key):
                self.blocked.add((partition, key))
            case UnblockPartition((_, partition), key):
                self.blocked.discard((partition, key))

    @property
    def is_well(self) -> bool:
        return not self.quarantined and not self.blocked

    def holds(self, statuses: Mapping[int, tuple[int, str]], *, epoch: int = 1) -> bool:
        """Whether it holds exactly these versions and statuses, by the member's number."""
        expected = {}
        for number, (version, status) in statuses.items():
            key = key_of(number).encode()
            partition = partition_of(key, MEMBERSHIPS.partitions)
            match INGEST.change_of(MEMBERSHIPS.name, partition, key, record_of(number, version, status, epoch=epoch)):
                case Upsert(cache_key, found_epoch, found, compiled):
                    expected[cache_key] = found_epoch, found, compiled
        return self.is_well and self.states == expected


async def holds(owner: Owner, statuses: Mapping[int, tuple[int, str]], *, epoch: int = 1) -> None:
    """Wait until readers of the whole log hold this."""

    async def read() -> Reader:
        return await Reader.of(owner)

    await wait_until(
        read, lambda reader: reader.holds(statuses, epoch=epoch), describe="readers hold what the rows say"
    )
