"""Whether a cache is what the log says: the log is read again from its beginning, into a cache that is thrown away."""

import asyncio
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from access.cache import Cache, Partition
from access.digest import digest_of, document_of
from access.path import AccessPath
from access.records import is_quarantined, subject_of, version_of
from infra.kafka.clients import Kafka
from infra.tasks import end_tasks

_POLL_SECONDS: Final = 0.1
#: How long one cache may be behind the other before that is what is reported.
_BEHIND_SECONDS: Final = 20.0


class CacheBehindError(Exception):
    """The cache does not follow the log, or the log could not be read: there is nothing to compare with."""


@dataclass(frozen=True)
class Difference:
    """A subject of which a cache and the log say different things; (epoch, version), or None where it has none."""

    kind: str
    subject: str
    in_cache: tuple[int, int] | None
    in_log: tuple[int, int] | None


@dataclass(frozen=True)
class Verification:
    """What came out."""

    subjects: int
    differences: tuple[Difference, ...]


_Records = tuple[bytes | None, bytes | None]


async def verify(
    live: Cache, *, service: str, modules: Collection[str], kafka: Kafka, root_key: Ed25519PublicKey
) -> Verification:
    """Compare a cache that some process keeps filling with the log. Raises CacheBehindError.

    Both move while they are compared, so what differs is looked at until it is equal, or differs in the same way when
    each has applied what the other had.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = AccessPath.open(Path(folder), service=service, modules=modules, kafka=kafka, root_key=root_key)
        # It does not matter whether the owners are heard: nothing is decided from it.
        scratch.cache.note_topic_ids(0, live.topic_ids(live.head().active))
        following = asyncio.create_task(scratch.run())
        try:
            await _reach(scratch.cache, live, "the log cannot be read, or not as fast as it grows")
            subjects, differing = await asyncio.to_thread(_differing, live, scratch.cache)
            while differing:
                await _reach(scratch.cache, live, "the log cannot be read, or not as fast as it grows")
                await _reach(live, scratch.cache, "the cache does not follow the log")
                looked = {key: _both(key, live, scratch.cache) for key in differing}
                again = {key: pair for key, pair in looked.items() if not _are_equal(key, *pair)}
                if again == differing:
                    break
                differing = again
            return Verification(subjects, tuple(_difference(key, *pair) for key, pair in sorted(differing.items())))
        finally:
            await end_tasks(following)
            scratch.close()


async def _reach(follower: Cache, leader: Cache, failure: str) -> None:
    """Wait until the one has applied what the other has now; while it comes nearer, as long as it takes."""
    wanted = leader.positions(leader.head().active)
    waited = 0.0
    seen: Mapping[Partition, int] = {}
    while True:
        positions = follower.positions(follower.head().active)
        if all(positions.get(partition, 0) >= offset for partition, offset in wanted.items()):
            return
        waited = 0.0 if positions != seen else waited + _POLL_SECONDS
        seen = positions
        if waited > _BEHIND_SECONDS:
            raise CacheBehindError(failure)
        await asyncio.sleep(_POLL_SECONDS)


def _differing(one: Cache, other: Cache) -> tuple[int, dict[bytes, _Records]]:
    subjects = 0
    differing: dict[bytes, _Records] = {}
    for key, record, other_record in _merged(one.records(), other.records()):
        subjects += 1
        if not _are_equal(key, record, other_record):
            differing[key] = (record, other_record)
    return subjects, differing


def _merged(
    one: Iterator[tuple[bytes, bytes]], other: Iterator[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Both in the order of their keys, side by side."""
    end = (b"\xff", b"")
    (key, record), (other_key, other_record) = next(one, end), next(other, end)
    while key != end[0] or other_key != end[0]:
        first = min(key, other_key)
        yield first, record if key == first else None, other_record if other_key == first else None
        if key == first:
            key, record = next(one, end)
        if other_key == first:
            other_key, other_record = next(other, end)


def _both(key: bytes, one: Cache, other: Cache) -> _Records:
    return one.read((key,))[1][0], other.read((key,))[1][0]


def _are_equal(key: bytes, one: bytes | None, other: bytes | None) -> bool:
    if one == other:
        return True
    if one is None or other is None:
        return False
    # In quarantine neither decides, whatever was known before, which compaction may have taken from the log.
    if is_quarantined(one) and is_quarantined(other):
        return True
    return digest_of(document_of(key, one)) == digest_of(document_of(key, other))


def _difference(key: bytes, in_cache: bytes | None, in_log: bytes | None) -> Difference:
    versions = [None if record is None else version_of(record) for record in (in_cache, in_log)]
    return Difference(*subject_of(key), in_cache=versions[0], in_log=versions[1])
