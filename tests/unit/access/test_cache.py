"""The store: what one transaction holds, what a rebuild may replace, and what is thrown away."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.cache import (
    BlockPartition,
    Cache,
    CacheAlreadyOpenError,
    Head,
    Quarantine,
    SwapRefusedError,
    UnblockPartition,
    Upsert,
)
from access.records import is_quarantined, quarantined, version_of

KEY = b"m" + bytes(32)
PARTITION = ("auth.memberships.v1", 2)


def state(epoch: int, version: int) -> Upsert:
    head = quarantined(None)
    record = b"\0" + epoch.to_bytes(8, "little") + version.to_bytes(8, "little") + head[17:] + b"rest"
    return Upsert(KEY, epoch, version, record)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    opened = Cache.open(tmp_path / "cache", boot_id="a boot")
    yield opened
    opened.close()


def held(cache: Cache) -> bytes:
    _, (record,) = cache.read((KEY,))
    assert record is not None
    return record


def test_only_a_newer_pair_applies_in_every_order(tmp_path: Path) -> None:
    states = [state(1, 1), state(1, 9), state(2, 1), state(2, 2)]
    for number, order in enumerate(permutations(states)):
        cache = Cache.open(tmp_path / str(number), boot_id="a boot", map_size_bytes=2**20)
        for change in (*order, *order):
            cache.apply(0, (change,), {})
        assert version_of(held(cache)) == (2, 2)
        cache.close()


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5), st.booleans()), min_size=1, max_size=12))
def test_a_quarantine_lasts_until_something_newer(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, int, bool]]
) -> None:
    cache = Cache.open(tmp_path_factory.mktemp("cache"), boot_id="a boot", map_size_bytes=2**20)
    try:
        newest, flagged = (0, 0), False
        for epoch, version, readable in history:
            cache.apply(0, (state(epoch, version) if readable else Quarantine(KEY, "broken"),), {})
            if not readable:
                flagged = True
            elif (epoch, version) > newest:
                newest, flagged = (epoch, version), False
            assert version_of(held(cache)) == newest
            assert is_quarantined(held(cache)) is flagged
            assert bool(cache.flags()) is flagged
    finally:
        cache.close()


def test_records_and_offsets_survive_together(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache", boot_id="a boot")
    cache.apply(0, (state(1, 1), Quarantine(b"e" + bytes(16), "broken")), {PARTITION: 7})
    cache.close()
    again = Cache.open(tmp_path / "cache", boot_id="a boot")
    assert version_of(held(again)) == (1, 1)
    assert again.positions(0) == {PARTITION: 7}
    assert [flag.why for flag in again.flags()] == ["broken"]
    again.close()


@pytest.mark.parametrize(("boot_id", "scope"), [("another", ""), ("a boot", "venue")])
def test_what_another_boot_or_scope_wrote_is_thrown_away(tmp_path: Path, boot_id: str, scope: str) -> None:
    cache = Cache.open(tmp_path / "cache", boot_id="a boot")
    cache.apply(0, (state(1, 1),), {PARTITION: 7}, lambda head: replace(head, complete=True))
    cache.close()
    again = Cache.open(tmp_path / "cache", boot_id=boot_id, scope=scope)
    assert again.record_count() == 0
    assert not again.head().complete
    again.close()


def test_a_failing_batch_leaves_nothing(cache: Cache) -> None:
    def fail(_: Head) -> Head:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.apply(0, (state(1, 1),), {PARTITION: 7}, fail)
    assert cache.record_count() == 0


def test_a_folder_is_open_once_in_a_process(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(CacheAlreadyOpenError):
        Cache.open(tmp_path / "cache", boot_id="a boot")


def test_a_generation_that_is_behind_is_not_swapped_in(cache: Cache) -> None:
    cache.apply(0, (state(1, 2),), {PARTITION: 7}, lambda head: replace(head, complete=True))
    other = cache.empty_other()
    with pytest.raises(SwapRefusedError):
        cache.swap()
    cache.apply(other, (state(1, 1),), {PARTITION: 6})
    with pytest.raises(SwapRefusedError):
        cache.swap()
    assert version_of(held(cache)) == (1, 2)
    cache.apply(other, (state(1, 2),), {PARTITION: 7})
    assert (cache.swap().active, cache.head().generation) == (other, 2)
    assert cache.head().complete
    assert version_of(held(cache)) == (1, 2)


def test_blocks_are_counted_per_generation(cache: Cache) -> None:
    assert not cache.head().is_doubtful
    cache.apply(0, (BlockPartition(PARTITION, b"\xff" * 600), BlockPartition(PARTITION, b"\xfe")), {PARTITION: 1})
    assert cache.blocked_partitions() == {PARTITION}
    cache.apply(0, (UnblockPartition(PARTITION, b"\xfe"),), {})
    assert cache.head().is_doubtful
    other = cache.empty_other()
    cache.apply(other, (), {PARTITION: 1})
    cache.swap()
    assert cache.blocked_partitions() == set()
    assert not cache.head().is_doubtful


_WRITER = """
import sys
from pathlib import Path
from access.cache import Cache
from tests.unit.access.test_cache import PARTITION, state
cache = Cache.open(Path(sys.argv[1]), boot_id="a boot")
version = 0
while True:
    version += 1
    cache.apply(0, (state(1, version),), {PARTITION: version})
    if version == 50:
        print("running", flush=True)
"""


async def test_a_killed_writer_leaves_state_and_offset_in_step(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    for _ in range(3):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, str(folder), stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"running\n"
        writer.kill()
        await writer.wait()
        cache = Cache.open(folder, boot_id="a boot")
        assert version_of(held(cache))[1] == cache.positions(0)[PARTITION] >= 50
        cache.close()
        (folder / "identity").unlink()
