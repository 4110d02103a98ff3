"""Whether a module's cache is what the rows of its owners say."""

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import lmdb

from access.cache import Cache
from access.digest import Document, combined, digest_of, digests
from access.folder import holder_of
from access.records import MODULE_IDS, Membership, membership_key

_CACHE_FILE: Final = "data.mdb"

Digests = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Proof:
    """What became of a comparison of rows with a cache, and with a copy of the cache in which one bit was flipped.

    :ivar subjects: how many the rows tell of.
    :ivar digest: one digest of all the rows say.
    :ivar differing: kind and key of what the cache and the rows do not agree on.
    :ivar differing_when_flipped: the same for the copy with the flipped bit.
    """

    subjects: int
    digest: str
    differing: list[tuple[str, str]]
    differing_when_flipped: list[tuple[str, str]]


def prove(folder: Path, rows: Mapping[tuple[str, str], Document], *, module: str, member: tuple[UUID, UUID]) -> Proof:
    """Compare the rows' documents with a cache another process has open, and with a copy that was tampered with.

    The bit that is flipped there is one permission of `member`, a company and a person who has the module.
    """
    with tempfile.TemporaryDirectory() as copy:
        environment = lmdb.Environment(str(holder_of(folder).environment), readonly=True, create=False)
        environment.copy(copy, compact=True)
        environment.close()
        found, record = _read(Path(copy), membership_key(*member))
        _flip_permission(Path(copy) / _CACHE_FILE, record, module)
        flipped, _ = _read(Path(copy), membership_key(*member))
    told = {subject: digest_of(document) for subject, document in rows.items()}
    return Proof(len(told), combined(told), _differing(told, found), _differing(told, flipped))


def main() -> None:
    """`prove` where the cache is, as in a container: asked on standard input, answered on standard output."""
    asked = json.load(sys.stdin)
    company_id, user_id = map(UUID, asked["member"])
    rows = {(kind, key): document for kind, key, document in asked["rows"]}
    proof = prove(Path(asked["folder"]), rows, module=asked["module"], member=(company_id, user_id))
    json.dump(asdict(proof), sys.stdout)


def _read(copy: Path, key: bytes) -> tuple[Digests, bytes]:
    """All digests of a copy, and one of its records."""
    cache = Cache.open_as_it_is(copy)
    try:
        _, (record,) = cache.read((key,))
        if record is None:
            raise LookupError("the cache does not have the member")
        return digests(cache), record
    finally:
        cache.close()


def _flip_permission(file: Path, record: bytes, module: str) -> None:
    grant = Membership(record).grant(MODULE_IDS[module])
    if grant is None or not grant.mask:
        raise LookupError("the member holds no permission of the module")
    mask = grant.mask.to_bytes((grant.mask.bit_length() + 7) // 8, "little")
    content = bytearray(file.read_bytes())
    position = content.index(record) + record.index(mask)
    content[position] ^= 1
    file.write_bytes(content)


def _differing(left: Digests, right: Digests) -> list[tuple[str, str]]:
    return sorted(subject for subject in left.keys() | right.keys() if left.get(subject) != right.get(subject))


if __name__ == "__main__":
    main()
