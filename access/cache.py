"""The access cache: an LMDB environment with two generations of records, one of them active.

Records and the offsets they came from are one transaction, so that after any crash the stored state is exactly that of
the stored offsets. A decision reads the active generation and everything it needs in one transaction.

Open it after a fork and once per process. Every process reads; the one that holds the folder's lock writes. It does not
survive a power cut, so another boot finds it empty.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import UUID

import lmdb

from access.folder import CacheFolder, NoCacheError, holder_of
from access.freshness import OWNERS, OwnerFreshness
from access.records import fingerprint, is_quarantined, lost, quarantined, takes_its_revision, version_of

#: A topic by the registry's name, and a partition.
Partition = tuple[str, int]

MAP_SIZE_BYTES: Final = 4 * 1024**3
_READERS_MAX: Final = 1024
_SPARE_TRANSACTIONS: Final = 8
GENERATIONS: Final = (0, 1)
_DATA_FILE: Final = "data.mdb"
_SLICE_RECORDS: Final = 1000

_HEAD_KEY: Final = b"head"
_REBUILDS_KEY: Final = b"rebuilds"
_POSITION: Final = b"o"
_ANCHOR: Final = b"a"
_TOPIC_ID: Final = b"i"
_FLAG: Final = b"q"
_BLOCKED: Final = b"x"
_WITHDRAWN: Final = b"w"
_OFFSET: Final = struct.Struct("<Q")
_ANCHORED: Final = struct.Struct("<Q16s")
_REBUILDS: Final = struct.Struct("<QQ")
_PARTITION: Final = struct.Struct(">H")
_HEAD: Final = struct.Struct("<BBIQQ")
_OWNER: Final = struct.Struct("<qqqqQQQB")
_SHOWN_KEY_BYTES: Final = 255
#: First bytes of the keys of records.
_RECORDS: Final = b"ekmps"
_OLDER: Final = "the log has only an older state than the one that was applied"
_GONE: Final = "the log no longer has what was applied"

_open_environments: Final[set[Path]] = set()


class CacheAlreadyOpenError(Exception):
    """LMDB loses its locks when a process opens an environment twice."""


class CacheSupersededError(Exception):
    """Another version of the service has taken the folder over; this process can only end."""


class SwapRefusedError(Exception):
    """The other generation is behind the active one in a partition, or was not compared with it."""


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
    #: The event it came in; None where a tool or a test made it up.
    event_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The newest state of a subject could not be read.

    :ivar stands_for: the (epoch, version) of the state the log refused, where the owner published its key without any
        data in its place. Who knows that state, or a newer one, has nothing to learn from it: the log may take the
        state later under this same revision, which lifts no quarantine.
    """

    key: bytes
    why: str
    stands_for: tuple[int, int] | None = None


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
_OfSubject = Upsert | Quarantine


@dataclass(frozen=True, slots=True)
class Anchor:
    """The last record that was read of a partition: by it a log is known again, or found to be another."""

    offset: int
    fingerprint: bytes

    @classmethod
    def of(cls, offset: int, record_key: bytes | None, value: bytes | None) -> "Anchor":
        hashed = hashlib.blake2b(digest_size=16)
        for part in (record_key, value):
            hashed.update(b"-" if part is None else b"%d:" % len(part) + part)
        return cls(offset, hashed.digest())


@dataclass
class Comparison:
    """How far the active generation was compared with the one that is to take its place.

    No state may go back by a swap, so what is newer in the active one is carried over, in quarantine. Both are compared
    in slices while the active one serves; whoever applies changes to it meanwhile adds their keys to `changed`.
    """

    #: The request for a rebuild that is served.
    request: int
    after: bytes = b""
    is_over: bool = False
    changed: set[bytes] = field(default_factory=set)

    @property
    def has_begun(self) -> bool:
        return bool(self.after) or self.is_over


@dataclass(frozen=True, slots=True)
class Flag:
    """A quarantine as an operator sees it."""

    key: bytes
    why: str


class Cache:
    """The store. Reading is safe in every process that has opened it; one process writes."""

    def __init__(self, path: Path, environment: lmdb.Environment, folder: CacheFolder | None) -> None:
        """Use `Cache.open`."""
        self._path = path
        self._folder = folder
        self._environment = environment
        self._file = (path / _DATA_FILE).stat()
        self._meta = environment.open_db(b"meta")
        self._generations = tuple(environment.open_db(b"generation-%d" % number) for number in GENERATIONS)
        self._head_raw = b""
        self._head = Head()
        with environment.begin(write=True) as transaction:
            transaction.put(_HEAD_KEY, Head().pack(), db=self._meta, overwrite=False)

    @classmethod
    def open(cls, folder: Path, *, boot_id: str, scope: str = "", map_size_bytes: int = MAP_SIZE_BYTES) -> "Cache":
        """Open or create the cache in a folder that is its service's own, on a local disk.

        What another boot wrote, another format, other contracts or for another `scope` (what it keeps, and for whom) is
        never looked at, and thrown away if this process may write. Raises CacheAlreadyOpenError.
        """
        identity = hashlib.sha256(f"{fingerprint()}\n{boot_id}\n{scope}".encode()).hexdigest()
        shared = CacheFolder(folder.resolve(), identity)
        if shared.environment in _open_environments:
            raise CacheAlreadyOpenError(f"{folder} is open in this process already")
        shared.open()
        return cls(shared.environment, cls._environment_in(shared.environment, map_size_bytes), shared)

    @classmethod
    def open_in_use(cls, folder: Path) -> "Cache":
        """Open, to look at it, the cache that the processes of a service have in use, or left behind.

        Raises NoCacheError, CacheAlreadyOpenError.
        """
        return cls._open_existing(holder_of(folder.resolve()).environment)

    @classmethod
    def open_as_it_is(cls, folder: Path) -> "Cache":
        """Open a copy somebody made of a cache, whoever filled it. Raises NoCacheError, CacheAlreadyOpenError."""
        return cls._open_existing(folder.resolve())

    @classmethod
    def _open_existing(cls, path: Path) -> "Cache":
        if path in _open_environments:
            raise CacheAlreadyOpenError(f"{path} is open in this process already")
        if not (path / _DATA_FILE).exists():
            raise NoCacheError(f"there is no access cache in {path}")
        return cls(path, cls._environment_in(path, MAP_SIZE_BYTES), None)

    @staticmethod
    def _environment_in(path: Path, map_size_bytes: int) -> lmdb.Environment:
        environment = lmdb.Environment(
            str(path),
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
        _open_environments.add(path)
        return environment

    def close(self) -> None:
        """Let go of the environment and the lock; a second call does nothing."""
        if self._path in _open_environments:
            self._environment.close()
            _open_environments.discard(self._path)
        self.stop_writing()

    # Whose turn it is.

    @property
    def is_writer(self) -> bool:
        """Whether this process may write."""
        return self._folder is not None and self._folder.is_locked

    def try_to_write(self) -> bool:
        """Take the turn to write, if nobody has it. Raises CacheSupersededError where this cache was thrown away."""
        if self._folder is None or not self._folder.lock():
            return False
        try:
            is_there = os.path.samestat((self._path / _DATA_FILE).stat(), self._file)
        except FileNotFoundError:
            is_there = False
        if not is_there:
            self._folder.unlock()
            raise CacheSupersededError(f"{self._path} was thrown away: another version of the service has started")
        self._environment.reader_check()
        return True

    def stop_writing(self) -> None:
        """Leave the turn to another process."""
        if self._folder is not None:
            self._folder.unlock()

    # Reading.

    def read(self, keys: Sequence[bytes]) -> tuple[Head, list[bytes | None]]:
        """The head and these records of the active generation, as of one instant."""
        # Not `with`: it takes as long as two gets.
        transaction = self._environment.begin()
        try:
            get = transaction.get
            head = self._head_in(transaction)
            database = self._generations[head.active]
            return head, [get(key, None, database) for key in keys]
        finally:
            transaction.abort()

    def read_decision(
        self, membership: bytes, entitlement: bytes, permissions: bytes
    ) -> tuple[Head, bytes | None, bytes | None, bytes | None]:
        """As `read`, for the records of a decision."""
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

    def flags(self, *, limit: int | None = None) -> list[Flag]:
        """Each subject of the active generation in quarantine, so many at most."""
        return [Flag(key[1:], value.decode()) for key, value in islice(self._scan(None, _FLAG), limit)]

    def positions(self, generation: int) -> dict[Partition, int]:
        """The next offset to apply, of each partition a generation has applied anything of."""
        return {_partition_of(key[1:]): _OFFSET.unpack(value)[0] for key, value in self._scan(generation, _POSITION)}

    def anchors(self, generation: int) -> dict[Partition, Anchor]:
        """The last record a generation has read of each partition."""
        return {
            _partition_of(key[1:]): Anchor(*_ANCHORED.unpack(value)) for key, value in self._scan(generation, _ANCHOR)
        }

    def topic_ids(self, generation: int) -> dict[str, str]:
        """The broker's id of each topic a generation was filled from, as far as a heartbeat told it."""
        return {key[1:].decode(): value.decode() for key, value in self._scan(generation, _TOPIC_ID)}

    def records(self, generation: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Every record with its key, in the order of the keys.

        Read in slices: beside a writer, each record is of some moment since the beginning. An open transaction would
        keep every page alive that is written meanwhile.
        """
        after = b""
        while True:
            with self._environment.begin() as transaction:
                number = self._head_in(transaction).active if generation is None else generation
                found = _records_after(transaction, self._generations[number], after, _SLICE_RECORDS)
            yield from found
            if len(found) < _SLICE_RECORDS:
                return
            after = found[-1][0]

    def rebuilds(self) -> tuple[int, int]:
        """How many rebuilds were ever asked for, and how many of them are done."""
        with self._environment.begin(db=self._meta) as transaction:
            return self._rebuilds_in(transaction)

    def ask_for_rebuild(self) -> int:
        """Ask whoever writes to fill the cache from the log anew; returns the request's number. Any process may."""
        with self._environment.begin(write=True) as transaction:
            asked, done = self._rebuilds_in(transaction)
            transaction.put(_REBUILDS_KEY, _REBUILDS.pack(asked + 1, done), db=self._meta)
        return asked + 1

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
        *,
        anchors: Mapping[Partition, Anchor] = MappingProxyType({}),
        applied: list[Upsert | Quarantine] | None = None,
    ) -> Head:
        """Apply what is newer and store the offsets, in one transaction; `revise` changes the head in it.

        What changed a subject is added to `applied`, where one is given.
        """
        database = self._generations[generation]
        with self._environment.begin(write=True) as transaction:
            head = before = self._head_in(transaction)
            found = [change for change in changes if self._applies(transaction, database, change)]
            of_subjects = [change for change in found if isinstance(change, _OfSubject)]
            if applied is not None:
                applied += of_subjects
            for partition, offset in positions.items():
                transaction.put(_POSITION + _partition_bytes(partition), _OFFSET.pack(offset), db=database)
            for partition, anchor in anchors.items():
                packed = _ANCHORED.pack(anchor.offset, anchor.fingerprint)
                transaction.put(_ANCHOR + _partition_bytes(partition), packed, db=database)
            if len(of_subjects) < len(found) and generation == head.active:
                head = replace(head, blocks=sum(1 for _ in _prefixed(transaction, database, _BLOCKED)))
            if any(change.key[:1] == b"k" for change in of_subjects) and generation == head.active:
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
        """Empty the cache: what it was filled from is gone. Nothing is decided until it is complete again."""
        with self._environment.begin(write=True) as transaction:
            head = self._head_in(transaction)
            for database in self._generations:
                transaction.drop(database, delete=False)
            fresh = Head(active=head.active, keys_generation=head.keys_generation + 1, generation=head.generation + 1)
            transaction.put(_HEAD_KEY, fresh.pack(), db=self._meta)
            self._note_rebuild(transaction, self._rebuilds_in(transaction)[0])

    def empty_other(self) -> int:
        """Empty the generation that is not active, for a rebuild; returns its number."""
        with self._environment.begin(write=True) as transaction:
            other = 1 - self._head_in(transaction).active
            transaction.drop(self._generations[other], delete=False)
            return other

    def compare(self, comparison: Comparison, records_max: int) -> list[Flag]:
        """Go on comparing, by so many records. Returns what had to be carried over.

        Only while the other generation is behind in no partition: before, it rightly has older states.
        """
        with self._environment.begin(write=True) as transaction:
            head = self._head_in(transaction)
            live, other = self._generations[head.active], self._generations[1 - head.active]
            if comparison.is_over:
                changed = [comparison.changed.pop() for _ in range(min(records_max, len(comparison.changed)))]
                return self._carry_over(transaction, changed, live, other)
            found = _records_after(transaction, live, comparison.after, records_max)
            comparison.is_over = len(found) < records_max
            if found:
                comparison.after = found[-1][0]
            return self._carry_over(transaction, [key for key, _ in found], live, other)

    def swap(self, comparison: Comparison) -> tuple[Head, list[Flag]]:
        """Make the other generation the active one; also returns what had to be carried over last.

        Raises SwapRefusedError where it is behind in any partition or was not compared to the end.
        """
        if not comparison.is_over:
            raise SwapRefusedError("the new generation was not compared with the live one")
        with self._environment.begin(write=True) as transaction:
            head = self._head_in(transaction)
            other = 1 - head.active
            live, database = self._generations[head.active], self._generations[other]
            for key, offset in _prefixed(transaction, live, _POSITION):
                reached = transaction.get(key, db=database)
                if reached is None or _OFFSET.unpack(reached)[0] < _OFFSET.unpack(offset)[0]:
                    topic, partition = _partition_of(key[1:])
                    raise SwapRefusedError(f"{topic}/{partition} of the new generation is behind the live one")
            carried = self._carry_over(transaction, comparison.changed, live, database)
            for key, shown in list(_prefixed(transaction, live, _BLOCKED)):
                # The log kept it if the owner has not withdrawn it.
                if transaction.get(_WITHDRAWN + key[1:], db=database) is None:
                    transaction.put(key, shown, db=database, overwrite=False)
            for key, topic_id in list(_prefixed(transaction, live, _TOPIC_ID)):
                transaction.put(key, topic_id, db=database)
            swapped = replace(
                head,
                active=other,
                blocks=sum(1 for _ in _prefixed(transaction, database, _BLOCKED)),
                keys_generation=head.keys_generation + 1,
                generation=head.generation + 1,
            )
            transaction.put(_HEAD_KEY, swapped.pack(), db=self._meta)
            self._note_rebuild(transaction, comparison.request)
            return swapped, carried

    @staticmethod
    def _carry_over(
        transaction: "lmdb.Transaction[bytes]",
        keys: Iterable[bytes],
        live: "lmdb._Database",
        other: "lmdb._Database",
    ) -> list[Flag]:
        """Whatever is newer in the live generation, or in quarantine there and not newer in the other: keep it so."""
        carried = []
        for key in keys:
            known, found = transaction.get(key, db=live), transaction.get(key, db=other)
            if known is None or known == found:
                continue
            if found is not None and version_of(found) >= version_of(known):
                if version_of(found) > version_of(known) or is_quarantined(found) or not is_quarantined(known):
                    continue
                if takes_its_revision(key, known):
                    continue
            reason = transaction.get(_FLAG + key, db=live) or (_GONE if found is None else _OLDER).encode()
            # What could not be read is newer than anything that was: only something newer lifts it.
            is_unreadable = found is not None and is_quarantined(found)
            transaction.put(key, quarantined(known) if is_unreadable else lost(known), db=other)
            transaction.put(_FLAG + key, reason, db=other)
            carried.append(Flag(key, reason.decode()))
        return carried

    def _rebuilds_in(self, transaction: "lmdb.Transaction[bytes]") -> tuple[int, int]:
        raw = transaction.get(_REBUILDS_KEY, db=self._meta)
        if raw is None:
            return 0, 0
        asked, done = _REBUILDS.unpack(raw)
        return asked, done

    def _note_rebuild(self, transaction: "lmdb.Transaction[bytes]", request: int) -> None:
        asked, done = self._rebuilds_in(transaction)
        transaction.put(_REBUILDS_KEY, _REBUILDS.pack(asked, max(done, request)), db=self._meta)

    @staticmethod
    def _applies(transaction: "lmdb.Transaction[bytes]", database: "lmdb._Database", change: Change) -> bool:
        """Apply one change; False where it is not newer than what is known."""
        match change:
            case Quarantine():
                known = transaction.get(change.key, db=database)
                if change.stands_for is not None and known is not None and change.stands_for <= version_of(known):
                    return False
                transaction.put(change.key, quarantined(known), db=database)
                transaction.put(_FLAG + change.key, change.why.encode(), db=database)
                return True
            case BlockPartition():
                block = _block_key(change)
                transaction.delete(_WITHDRAWN + block, db=database)
                return transaction.put(_BLOCKED + block, change.record_key[:_SHOWN_KEY_BYTES], db=database)
            case UnblockPartition():
                block = _block_key(change)
                # Remembered for a swap: the other generation may not have come that far.
                transaction.put(_WITHDRAWN + block, b"", db=database)
                return transaction.delete(_BLOCKED + block, db=database)
        # Most are new while a cache is filled, and found out to be with one look.
        is_new = transaction.put(change.key, change.record, db=database, overwrite=False)
        known = None if is_new else transaction.get(change.key, db=database)
        if known is not None:
            if (change.epoch, change.version) < version_of(known) or (
                (change.epoch, change.version) == version_of(known) and not takes_its_revision(change.key, known)
            ):
                return False
            if is_quarantined(known):
                transaction.delete(_FLAG + change.key, db=database)
            transaction.put(change.key, change.record, db=database)
        return True

    def _head_in(self, transaction: "lmdb.Transaction[bytes]") -> Head:
        raw = transaction.get(_HEAD_KEY, db=self._meta)
        if raw is None:
            raise RuntimeError(f"{self._path} holds no head")
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


def _records_after(
    transaction: "lmdb.Transaction[bytes]", database: "lmdb._Database", after: bytes, records_max: int
) -> list[tuple[bytes, bytes]]:
    """So many records behind a key, in the order of the keys; fewer only at the end."""
    found: list[tuple[bytes, bytes]] = []
    with transaction.cursor(db=database) as cursor:
        if not cursor.set_range(after):
            return found
        for key, value in cursor:
            if key[0] in _RECORDS and key != after:
                found.append((key, value))
                if len(found) == records_max:
                    break
    return found


def _partition_bytes(partition: Partition) -> bytes:
    return partition[0].encode() + b"\0" + _PARTITION.pack(partition[1])


def _partition_of(raw: bytes) -> Partition:
    return raw[: -_PARTITION.size - 1].decode(), _PARTITION.unpack(raw[-_PARTITION.size :])[0]


def _block_key(change: BlockPartition | UnblockPartition) -> bytes:
    # By its hash: the key may be longer than LMDB takes.
    return _partition_bytes(change.partition) + hashlib.sha256(change.record_key).digest()
