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
    Anchor,
    BlockPartition,
    Cache,
    CacheAlreadyOpenError,
    Change,
    Comparison,
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
    record = b"\0" + epoch.to_bytes(4, "little") + version.to_bytes(8, "little") + b"rest"
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


def test_the_state_an_unknown_one_stood_in_for_takes_its_place_in_any_order(tmp_path: Path) -> None:
    unknown = Upsert(KEY, 1, 3, state(1, 3).record[:13] + b"\0" + b"\0" * 3)
    for number, order in enumerate(permutations([state(1, 2), unknown, state(1, 3), unknown])):
        cache = Cache.open(tmp_path / str(number), boot_id="a boot")
        cache.apply(0, order, {})
        assert held(cache) == state(1, 3).record
        cache.apply(0, [Quarantine(KEY, "poison"), state(1, 3)], {})
        assert is_quarantined(held(cache))
        cache.close()


def test_of_a_withheld_state_only_who_does_not_know_it_learns_anything(tmp_path: Path) -> None:
    withheld = Quarantine(KEY, "the log refused its state", stands_for=(1, 3))
    changes: list[Change] = [state(1, 2), withheld, state(1, 3), withheld]
    for number, order in enumerate(permutations(changes)):
        cache = Cache.open(tmp_path / str(number), boot_id="a boot")
        cache.apply(0, order, {})
        assert held(cache) == state(1, 3).record
        assert not cache.flags()
        cache.apply(0, [state(1, 4)], {})
        cache.apply(0, [replace(withheld, stands_for=(1, 5))], {})
        assert held(cache) == quarantined(state(1, 4).record)
        cache.close()


def test_a_withheld_state_lifts_no_quarantine(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache", boot_id="a boot")
    cache.apply(0, [state(1, 3), POISON, Quarantine(KEY, "the log refused its state", stands_for=(1, 3))], {})
    assert held(cache) == quarantined(state(1, 3).record)
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


def compared(cache: Cache, comparison: Comparison | None = None) -> Comparison:
    """A comparison that is over. What it carried over is in the other generation."""
    done = comparison or Comparison(request=0)
    while not done.is_over or done.changed:
        cache.compare(done, 3)
    return done


def test_a_generation_that_is_behind_is_not_swapped_in(cache: Cache) -> None:
    cache.apply(0, (state(1, 2),), {PARTITION: 7}, lambda head: replace(head, complete=True))
    other = cache.empty_other()
    with pytest.raises(SwapRefusedError):
        cache.swap(compared(cache))
    cache.empty_other()
    cache.apply(other, (state(1, 2),), {PARTITION: 6})
    with pytest.raises(SwapRefusedError):
        cache.swap(compared(cache))
    assert version_of(held(cache)) == (1, 2)
    cache.apply(other, (), {PARTITION: 7})
    with pytest.raises(SwapRefusedError):
        cache.swap(Comparison(request=0))
    head, carried = cache.swap(compared(cache))
    assert (head.active, cache.head().generation) == (other, 2)
    assert carried == []
    assert cache.head().complete
    assert version_of(held(cache)) == (1, 2)
    assert not is_quarantined(held(cache))


POISON = Quarantine(KEY, "broken")


@pytest.mark.parametrize(
    ("live", "log", "version", "why"),
    [
        ([state(1, 2)], [state(1, 2)], (1, 2), None),
        ([state(1, 2)], [state(1, 3)], (1, 3), None),
        ([state(1, 9)], [state(2, 1)], (2, 1), None),
        ([state(1, 2)], [state(1, 1)], (1, 2), "the log has only an older state than the one that was applied"),
        ([state(2, 1)], [state(1, 9)], (2, 1), "the log has only an older state than the one that was applied"),
        ([state(1, 2)], [], (1, 2), "the log no longer has what was applied"),
        ([state(1, 2)], [POISON], (1, 2), "the log has only an older state than the one that was applied"),
        ([state(1, 2), POISON], [POISON], (1, 2), "broken"),
        ([state(1, 2), POISON], [state(1, 2)], (1, 2), "broken"),
        ([state(1, 2), POISON], [state(1, 1)], (1, 2), "broken"),
        ([state(1, 2), POISON], [], (1, 2), "broken"),
        ([state(1, 2), POISON], [state(1, 3)], (1, 3), None),
        ([POISON], [POISON], (0, 0), "broken"),
        ([POISON], [], (0, 0), "broken"),
        ([POISON], [state(1, 1)], (1, 1), None),
        ([POISON], [state(1, 1), POISON], (1, 1), "broken"),
    ],
)
def test_a_swap_takes_no_state_back_and_lifts_no_quarantine(
    cache: Cache, live: list[Change], log: list[Change], version: tuple[int, int], why: str | None
) -> None:
    cache.apply(0, live, {PARTITION: 7})
    other = cache.empty_other()
    cache.apply(other, log, {PARTITION: 7})
    cache.swap(compared(cache))
    assert version_of(held(cache)) == version
    assert is_quarantined(held(cache)) is (why is not None)
    assert [flag.why for flag in cache.flags()] == ([] if why is None else [why])
    # Only something newer lifts it afterwards, or what the log had lost and the owner tells again.
    cache.apply(other, (state(*version),) if version > (0, 0) else (), {})
    was_lost = POISON not in (*live, *log)
    assert is_quarantined(held(cache)) is (why is not None and not was_lost)
    cache.apply(other, (state(3, 1),), {})
    assert not is_quarantined(held(cache))
    assert cache.flags() == []


@pytest.mark.parametrize(
    ("told", "is_lifted"),
    [
        ([state(1, 1)], False),
        ([state(1, 2)], True),
        ([POISON, state(1, 2)], False),
        ([state(1, 2), POISON], False),
        ([state(1, 3)], True),
    ],
)
def test_what_the_log_had_lost_decides_again_once_it_is_told_again(
    cache: Cache, told: list[Change], *, is_lifted: bool
) -> None:
    cache.apply(0, [state(1, 2)], {PARTITION: 7})
    cache.apply(cache.empty_other(), [], {PARTITION: 7})
    cache.swap(compared(cache))
    # Another rebuild, still without it, and one more that finds it.
    cache.apply(cache.empty_other(), [], {PARTITION: 7})
    active = cache.swap(compared(cache))[0].active
    assert is_quarantined(held(cache))
    other = cache.empty_other()
    for generation in (active, other):
        cache.apply(generation, told, {PARTITION: 8})
    assert is_quarantined(held(cache)) is not is_lifted
    cache.swap(compared(cache))
    assert is_quarantined(held(cache)) is not is_lifted


def test_a_rebuild_that_finds_what_the_log_had_lost_lifts_its_quarantine(cache: Cache) -> None:
    cache.apply(0, [state(1, 2)], {PARTITION: 7})
    cache.apply(cache.empty_other(), [], {PARTITION: 7})
    cache.swap(compared(cache))
    cache.apply(cache.empty_other(), [state(1, 2)], {PARTITION: 8})
    assert cache.swap(compared(cache))[1] == []
    assert held(cache) == state(1, 2).record
    assert cache.flags() == []


def test_what_changes_while_generations_are_compared_is_compared_again(cache: Cache) -> None:
    cache.apply(0, (state(1, 1),), {PARTITION: 7})
    other = cache.empty_other()
    cache.apply(other, (state(1, 1),), {PARTITION: 7})
    comparison = compared(cache)
    cache.apply(0, (state(1, 2),), {PARTITION: 8})
    # The record the live one read was taken away by compaction, which kept an older one behind it.
    cache.apply(other, (), {PARTITION: 9})
    comparison.changed.add(KEY)
    _, carried = cache.swap(comparison)
    assert [flag.key for flag in carried] == [KEY]
    assert version_of(held(cache)) == (1, 2)
    assert is_quarantined(held(cache))


@given(st.data())
def test_no_history_and_no_compaction_makes_a_swap_go_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    subjects = [b"m" + bytes([number]) * 32 for number in range(4)]
    entry = st.tuples(st.sampled_from(subjects), st.integers(1, 2), st.integers(1, 4), st.booleans())
    log: list[Change] = [
        replace(state(epoch, version), key=key) if readable else Quarantine(key, "broken")
        for key, epoch, version, readable in data.draw(st.lists(entry, max_size=14))
    ]
    newest = {change.key: number for number, change in enumerate(log) if isinstance(change, Upsert | Quarantine)}
    kept = [
        change
        for number, change in enumerate(log)
        if isinstance(change, Upsert | Quarantine) and (newest[change.key] == number or data.draw(st.booleans()))
    ]
    cache = Cache.open(tmp_path_factory.mktemp("cache"), boot_id="a boot", map_size_bytes=2**20)
    try:
        cache.apply(0, log, {PARTITION: len(log)})
        before = dict(cache.records())
        cache.apply(cache.empty_other(), kept, {PARTITION: len(log)})
        cache.swap(compared(cache))
        after = dict(cache.records())
        assert after.keys() == before.keys()
        for key, record in before.items():
            assert version_of(after[key]) == version_of(record)
            # Compaction may have taken what was newest, so there may be more in quarantine, and never less.
            assert is_quarantined(after[key]) >= is_quarantined(record)
        assert {flag.key for flag in cache.flags()} == {key for key, record in after.items() if is_quarantined(record)}
    finally:
        cache.close()


def test_every_record_is_compared(cache: Cache) -> None:
    many = [replace(state(1, 2), key=b"m" + number.to_bytes(32, "big")) for number in range(2500)]
    cache.apply(0, many, {PARTITION: 7})
    assert len(list(cache.records())) == 2500
    other = cache.empty_other()
    cache.apply(other, many[:1200] + many[1300:], {PARTITION: 7})
    comparison, carried = Comparison(request=0), []
    while not comparison.is_over:
        carried += cache.compare(comparison, 100)
    assert [flag.key for flag in carried] == [change.key for change in many[1200:1300]]
    assert cache.swap(comparison)[1] == []
    assert (len(cache.flags()), len(cache.flags(limit=7))) == (100, 7)


def test_topic_ids_and_positions_go_on_after_a_swap(cache: Cache) -> None:
    anchor = Anchor.of(6, b"key", None)
    assert anchor != Anchor.of(6, b"key", b"")
    assert anchor != Anchor.of(5, b"key", None)
    cache.note_topic_ids(0, {"auth.memberships.v1": "A" * 22})
    cache.apply(0, (), {PARTITION: 7}, anchors={PARTITION: anchor})
    assert cache.anchors(0) == {PARTITION: anchor}
    cache.apply(cache.empty_other(), (), {PARTITION: 7})
    cache.swap(compared(cache))
    assert cache.topic_ids(1) == {"auth.memberships.v1": "A" * 22}


def test_a_request_for_a_rebuild_is_done_by_the_swap_that_served_it(cache: Cache) -> None:
    assert cache.rebuilds() == (0, 0)
    assert cache.ask_for_rebuild() == 1
    cache.empty_other()
    comparison = Comparison(request=1)
    assert cache.ask_for_rebuild() == 2
    cache.swap(compared(cache, comparison))
    # The one that came after it began is still to be served.
    assert cache.rebuilds() == (2, 1)
    cache.start_over()
    assert cache.rebuilds() == (2, 2)


def test_starting_over_leaves_nothing(cache: Cache) -> None:
    for generation in (0, 1):
        cache.apply(
            generation,
            (state(1, 1), BlockPartition(PARTITION, b"\xff")),
            {PARTITION: 7},
            lambda head: replace(head, complete=True),
            anchors={PARTITION: Anchor.of(6, b"", b"")},
        )
        cache.note_topic_ids(generation, {"auth.memberships.v1": "A" * 22})
    before = cache.head()
    cache.start_over()
    for generation in (0, 1):
        assert not list(cache.records(generation))
        assert not cache.positions(generation)
        assert not cache.anchors(generation)
        assert not cache.topic_ids(generation)
    head = cache.head()
    assert (head.complete, head.blocks, head.owners) == (False, 0, Head().owners)
    assert head.generation == before.generation + 1
    # Tokens that were verified with keys of the old log are not.
    assert head.keys_generation == before.keys_generation + 1


def test_blocks_are_counted_per_generation(cache: Cache) -> None:
    assert not cache.head().is_doubtful
    cache.apply(0, (BlockPartition(PARTITION, b"\xff" * 600), BlockPartition(PARTITION, b"\xfe")), {PARTITION: 1})
    assert cache.blocked_partitions() == {PARTITION}
    cache.apply(0, (UnblockPartition(PARTITION, b"\xfe"),), {})
    assert cache.head().is_doubtful


def test_a_swap_withdraws_no_unreadable_key_that_its_owner_has_not_withdrawn(cache: Cache) -> None:
    other_partition = ("auth.memberships.v1", 3)
    cache.apply(0, (BlockPartition(PARTITION, b"\xff"), BlockPartition(other_partition, b"\xfe")), {PARTITION: 1})
    other = cache.empty_other()
    # The log has lost the first, and the second was withdrawn where the live one has not read yet.
    withdrawn = (BlockPartition(other_partition, b"\xfe"), UnblockPartition(other_partition, b"\xfe"))
    cache.apply(other, withdrawn, {PARTITION: 1})
    head, _ = cache.swap(compared(cache))
    assert cache.blocked_partitions() == {PARTITION}
    assert head.blocks == 1
    assert head.is_doubtful
    cache.apply(other, (UnblockPartition(PARTITION, b"\xff"),), {})
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
    for number in range(3):
        folder = tmp_path / f"cache-{number}"
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
