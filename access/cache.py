"""The access cache: an LMDB environment with two generations of records, one of them active.

Records and the offsets they came from are one transaction, so that after any crash the stored state is exactly that of
the stored offsets. A decision reads the active generation and everything it needs in one transaction.

Open it after a fork and once per process. It does not survive a power cut, so another boot finds it empty.
"""

import hashlib
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import lmdb

from access.freshness import OWNERS, OwnerFreshness
from access.records import fingerprint, is_quarantined, quarantined, version_of

#: A topic by the registry's name, and a partition.
Partition = tuple[str, int]

MAP_SIZE_BYTES: Final = 4 * 1024**3
_READERS_MAX: Final = 1024
_SPARE_TRANSACTIONS: Final = 8
GENERATIONS: Final = (0, 1)
_IDENTITY_FILE: Final = "identity"

_HEAD_KEY: Final = b"head"
_POSITION: Final = b"o"
_TOPIC_ID: Final = b"i"
_FLAG: Final = b"q"
_BLOCKED: Final = b"x"
_OFFSET: Final = struct.Struct("<Q")
_PARTITION: Final = struct.Struct(">H")
_HEAD: Final = struct.Struct("<BBIQQ")
_OWNER: Final = struct.Struct("<qqqqQQQB")
_SHOWN_KEY_BYTES: Final = 255
#: Prefixes of records, in the order of a digest.
RECORD_PREFIXES: Final = (b"e", b"m", b"p", b"k", b"s")

_open_folders: Final[set[Path]] = set()


class CacheAlreadyOpenError(Exception):
    """LMDB loses its locks when a process opens an environment twice."""


class SwapRefusedError(Exception):
    """The other generation is behind the active one in a partition: swapping would go back."""


@dataclass(frozen=True, slots=True)
class Head:
    """What every decision reads first."""

    active: int = 0
    #: Whether the active generation has once reached every end offset with a fresh heartbeat.
    complete: bool = False
    #: How many unreadable keys of the active generation block a partition.
    blocks: int = 0
    #: Changes with every signing key that is applied; verified tokens are worth nothing after it.
    keys_generation: int = 0
    #: Counts the generations there have been.
    generation: int = 1
    owners: tuple[OwnerFreshness, ...] = field(default_factory=lambda: tuple(OwnerFreshness() for _ in OWNERS))
    #: Whether some subjects are unknown whatever their records say; worked out from the fields above.
    is_doubtful: bool = field(init=False, compare=False, default=False)

    def __post_init__(self) -> None:
        doubtful = self.blocks > 0 or any(owner.epoch_floor for owner in self.owners)
        object.__setattr__(self, "is_doubtful", doubtful)

    def pack(self) -> bytes:
        return _HEAD.pack(self.active, self.complete, self.blocks, self.keys_generation, self.generation) + b"".join(
            _OWNER.pack(
                owner.as_of,
                owner.lag,
                owner.received_wall,
                owner.received_boot,
                owner.epoch,
                owner.heartbeat,
                owner.epoch_floor,
                owner.ahead,
            )
            for owner in self.owners
        )

    @classmethod
    def unpack(cls, raw: bytes) -> "Head":
        active, complete, blocks, keys_generation, generation = _HEAD.unpack_from(raw)
        owners = []
        for number in range(len(OWNERS)):
            as_of, lag, wall, boot, epoch, heartbeat, floor, ahead = _OWNER.unpack_from(
                raw, _HEAD.size + number * _OWNER.size
            )
            owners.append(OwnerFreshness(as_of, lag, wall, boot, epoch, heartbeat, floor, bool(ahead)))
        return cls(active, bool(complete), blocks, keys_generation, generation, tuple(owners))


@dataclass(frozen=True, slots=True)
class Upsert:
    """A new state of a subject."""

    key: bytes
    epoch: int
    version: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The newest state of a subject could not be read."""

    key: bytes
    why: str


@dataclass(frozen=True, slots=True)
class BlockPartition:
    """A record whose key names no subject: any subject of the partition may be the one."""

    partition: Partition
    record_key: bytes


@dataclass(frozen=True, slots=True)
class UnblockPartition:
    """The owner has withdrawn the unreadable key."""

    partition: Partition
    record_key: bytes


Change = Upsert | Quarantine | BlockPartition | UnblockPartition


@dataclass(frozen=True, slots=True)
class Flag:
    """A quarantine as an operator sees it."""

    key: bytes
    why: str


class Cache:
    """The store. Reading is safe in every process that has opened it; one process writes."""

    def __init__(self, folder: Path, environment: lmdb.Environment) -> None:
        """Use `Cache.open`."""
        self._folder = folder
        self._environment = environment
        self._meta = environment.open_db(b"meta")
        self._generations = tuple(environment.open_db(b"generation-%d" % number) for number in GENERATIONS)
        self._head_raw = b""
        self._head = Head()
        with environment.begin(write=True) as transaction:
            raw = transaction.get(_HEAD_KEY, db=self._meta)
            if raw is None:
                transaction.put(_HEAD_KEY, Head().pack(), db=self._meta)

    @classmethod
    def open(cls, folder: Path, *, boot_id: str, scope: str = "", map_size_bytes: int = MAP_SIZE_BYTES) -> "Cache":
        """Open or create the cache in a folder that is its own, on a local disk.

        What another boot wrote, another format, another catalog or for another `scope` (which modules it keeps) is
        thrown away. Raises CacheAlreadyOpenError.
        """
        folder = folder.resolve()
        if folder in _open_folders:
            raise CacheAlreadyOpenError(f"{folder} is open in this process already")
        identity = hashlib.sha256(f"{fingerprint()}\n{boot_id}\n{scope}".encode()).hexdigest()
        marker = folder / _IDENTITY_FILE
        if not marker.exists() or marker.read_text(encoding="ascii") != identity:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
            marker.write_text(identity, encoding="ascii")
        environment = lmdb.Environment(
            str(folder),
            map_size=map_size_bytes,
            max_dbs=len(GENERATIONS) + 1,
            max_readers=_READERS_MAX,
            max_spare_txns=_SPARE_TRANSACTIONS,
            # It survives a killed process; the boot id above takes care of a power cut.
            sync=False,
            metasync=False,
        )
        # Slots of readers that were killed would keep old pages alive for ever.
        environment.reader_check()
        _open_folders.add(folder)
        return cls(folder, environment)

    @classmethod
    def open_as_it_is(cls, folder: Path) -> "Cache":
        """Open a copy somebody made of a cache, whoever filled it. Raises CacheAlreadyOpenError."""
        folder = folder.resolve()
        if folder in _open_folders:
            raise CacheAlreadyOpenError(f"{folder} is open in this process already")
        environment = lmdb.Environment(str(folder), map_size=MAP_SIZE_BYTES, max_dbs=len(GENERATIONS) + 1, create=False)
        _open_folders.add(folder)
        return cls(folder, environment)

    def close(self) -> None:
        """Let go of the environment; a second call does nothing."""
        if self._folder in _open_folders:
            self._environment.close()
            _open_folders.discard(self._folder)

    # Reading.

    def read(self, keys: Sequence[bytes]) -> tuple[Head, list[bytes | None]]:
        """The head and these records of the active generation, as of one instant."""
        with self._environment.begin() as transaction:
            head = self._head_in(transaction)
            database = self._generations[head.active]
            return head, [transaction.get(key, db=database) for key in keys]

    def read_decision(
        self, membership: bytes, entitlement: bytes, permissions: bytes
    ) -> tuple[Head, bytes | None, bytes | None, bytes | None]:
        """As `read`, for the records of a decision."""
        # Not `with`: it takes as long as two gets.
        transaction = self._environment.begin()
        try:
            get = transaction.get
            raw = get(_HEAD_KEY, None, self._meta)
            head = self._head if raw == self._head_raw else self._head_in(transaction)
            database = self._generations[head.active]
            return (
                head,
                get(membership, None, database),
                get(entitlement, None, database),
                get(permissions, None, database),
            )
        finally:
            transaction.abort()

    def head(self) -> Head:
        return self.read(())[0]

    def blocked_partitions(self) -> frozenset[Partition]:
        """The partitions of the active generation in which an unreadable key stands."""
        return frozenset(partition for partition, _ in self.blocks())

    def blocks(self) -> list[tuple[Partition, bytes]]:
        """Each unreadable key of the active generation."""
        return [
            (_partition_of(key[1 : -hashlib.sha256().digest_size]), value) for key, value in self._scan(None, _BLOCKED)
        ]

    def flags(self) -> list[Flag]:
        """Each subject of the active generation in quarantine."""
        return [Flag(key[1:], value.decode()) for key, value in self._scan(None, _FLAG)]

    def positions(self, generation: int) -> dict[Partition, int]:
        """The next offset to apply, of each partition a generation has applied anything of."""
        return {_partition_of(key[1:]): _OFFSET.unpack(value)[0] for key, value in self._scan(generation, _POSITION)}

    def topic_ids(self, generation: int) -> dict[str, str]:
        """The broker's id of each topic a generation was filled from, as far as a heartbeat told it."""
        return {key[1:].decode(): value.decode() for key, value in self._scan(generation, _TOPIC_ID)}

    def records(self, generation: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Every record with its key, in the order of the keys. Holds one transaction until the end: for small caches,
        copies and tools, not beside a writer.
        """
        for prefix in RECORD_PREFIXES:
            yield from self._scan(generation, prefix)

    def record_count(self) -> int:
        """How many entries the active generation has, offsets and flags among them."""
        with self._environment.begin() as transaction:
            head = self._head_in(transaction)
            count: int = transaction.stat(self._generations[head.active])["entries"]
            return count

    # Writing.

    def apply(
        self,
        generation: int,
        changes: Iterable[Change],
        positions: Mapping[Partition, int],
        revise: Callable[[Head], Head] | None = None,
    ) -> Head:
        """Apply what is newer and store the offsets, in one transaction; `revise` changes the head in it."""
        database = self._generations[generation]
        with self._environment.begin(write=True) as transaction:
            head = before = self._head_in(transaction)
            keys_changed = blocks_changed = False
            for change in changes:
                if self._applies(transaction, database, change):
                    keys_changed |= not isinstance(change, BlockPartition | UnblockPartition) and change.key[:1] == b"k"
                    blocks_changed |= isinstance(change, BlockPartition | UnblockPartition)
            for partition, offset in positions.items():
                transaction.put(_POSITION + _partition_bytes(partition), _OFFSET.pack(offset), db=database)
            if blocks_changed and generation == head.active:
                head = replace(head, blocks=sum(1 for _ in _prefixed(transaction, database, _BLOCKED)))
            if keys_changed and generation == head.active:
                head = replace(head, keys_generation=head.keys_generation + 1)
            if revise is not None:
                head = revise(head)
            if head != before:
                transaction.put(_HEAD_KEY, head.pack(), db=self._meta)
        return head

    def note_topic_ids(self, generation: int, ids: Mapping[str, str]) -> None:
        """Remember which topics a generation was filled from."""
        with self._environment.begin(write=True, db=self._generations[generation]) as transaction:
            for topic, topic_id in ids.items():
                transaction.put(_TOPIC_ID + topic.encode(), topic_id.encode())

    def start_over(self) -> None:
        """Empty the active generation: what it was filled from is gone. Nothing is decided until it is complete."""
        with self._environment.begin(write=True) as transaction:
            head = self._head_in(transaction)
            transaction.drop(self._generations[head.active], delete=False)
            fresh = Head(active=head.active, keys_generation=head.keys_generation + 1, generation=head.generation + 1)
            transaction.put(_HEAD_KEY, fresh.pack(), db=self._meta)

    def empty_other(self) -> int:
        """Empty the generation that is not active, for a rebuild; returns its number."""
        with self._environment.begin(write=True) as transaction:
            other = 1 - self._head_in(transaction).active
            transaction.drop(self._generations[other], delete=False)
            return other

    def swap(self) -> Head:
        """Make the other generation the active one. Raises SwapRefusedError where it is behind in any partition."""
        with self._environment.begin(write=True) as transaction:
            head = self._head_in(transaction)
            other = 1 - head.active
            database = self._generations[other]
            for key, offset in _prefixed(transaction, self._generations[head.active], _POSITION):
                reached = transaction.get(key, db=database)
                if reached is None or _OFFSET.unpack(reached)[0] < _OFFSET.unpack(offset)[0]:
                    topic, partition = _partition_of(key[1:])
                    raise SwapRefusedError(f"{topic}/{partition} of the new generation is behind the live one")
            swapped = replace(
                head,
                active=other,
                blocks=sum(1 for _ in _prefixed(transaction, database, _BLOCKED)),
                keys_generation=head.keys_generation + 1,
                generation=head.generation + 1,
            )
            transaction.put(_HEAD_KEY, swapped.pack(), db=self._meta)
            return swapped

    @staticmethod
    def _applies(transaction: "lmdb.Transaction[bytes]", database: "lmdb._Database", change: Change) -> bool:
        """Apply one change; False where it is not newer than what is known."""
        match change:
            case Quarantine():
                known = transaction.get(change.key, db=database)
                transaction.put(change.key, quarantined(known), db=database)
                transaction.put(_FLAG + change.key, change.why.encode(), db=database)
                return True
            case BlockPartition():
                return transaction.put(_block_key(change), change.record_key[:_SHOWN_KEY_BYTES], db=database)
            case UnblockPartition():
                return transaction.delete(_block_key(change), db=database)
        known = transaction.get(change.key, db=database)
        if known is not None:
            if (change.epoch, change.version) <= version_of(known):
                return False
            if is_quarantined(known):
                transaction.delete(_FLAG + change.key, db=database)
        transaction.put(change.key, change.record, db=database)
        return True

    def _head_in(self, transaction: "lmdb.Transaction[bytes]") -> Head:
        raw = transaction.get(_HEAD_KEY, db=self._meta)
        if raw is None:
            raise RuntimeError(f"{self._folder} holds no head")
        if raw != self._head_raw:
            self._head, self._head_raw = Head.unpack(raw), raw
        return self._head

    def _scan(self, generation: int | None, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._environment.begin() as transaction:
            number = self._head_in(transaction).active if generation is None else generation
            yield from _prefixed(transaction, self._generations[number], prefix)


def _prefixed(
    transaction: "lmdb.Transaction[bytes]", database: "lmdb._Database", prefix: bytes
) -> Iterator[tuple[bytes, bytes]]:
    with transaction.cursor(db=database) as cursor:
        if not cursor.set_range(prefix):
            return
        for key, value in cursor:
            if not key.startswith(prefix):
                return
            yield key, value


def _partition_bytes(partition: Partition) -> bytes:
    return partition[0].encode() + b"\0" + _PARTITION.pack(partition[1])


def _partition_of(raw: bytes) -> Partition:
    return raw[: -_PARTITION.size - 1].decode(), _PARTITION.unpack(raw[-_PARTITION.size :])[0]


def _block_key(change: BlockPartition | UnblockPartition) -> bytes:
    # By its hash: the key may be longer than LMDB takes.
    return _BLOCKED + _partition_bytes(change.partition) + hashlib.sha256(change.record_key).digest()
