"""Processes that share the folder of a cache: one writes, and only it throws away."""

import asyncio
import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from access.cache import Cache, CacheSupersededError
from access.folder import NoCacheError, holder_of
from access.records import version_of
from tests.harness.waiting import wait_until
from tests.unit.access.test_cache import KEY, PARTITION, state

_PROCESS = """
import sys
from pathlib import Path
from access.cache import Cache
from tests.unit.access.test_cache import PARTITION, state
cache = Cache.open(Path(sys.argv[1]), boot_id=sys.argv[2])
print("writer" if cache.is_writer else "reader", flush=True)
for line in sys.stdin:
    command, *numbers = line.split()
    if command == "write":
        cache.apply(0, (state(1, int(numbers[0])),), {PARTITION: int(numbers[0])})
    if command == "take":
        print(cache.try_to_write(), flush=True)
    if command == "ask":
        print(cache.ask_for_rebuild(), flush=True)
"""


class Other:
    """Another process with the same folder open."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, folder: Path, boot_id: str = "a boot") -> "Other":
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _PROCESS, str(folder), boot_id),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def heard(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        # All of its pipes, so that none is left behind.
        await self.process.communicate()


def version(cache: Cache) -> tuple[int, int] | None:
    _, (record,) = cache.read((KEY,))
    return None if record is None else version_of(record)


async def test_one_writes_and_the_next_takes_over_when_it_is_killed(tmp_path: Path) -> None:
    other = await Other.start(tmp_path)
    try:
        assert await other.heard() == "writer"
        cache = Cache.open(tmp_path, boot_id="a boot")
        assert not cache.is_writer
        assert not cache.try_to_write()
        holder = holder_of(tmp_path)
        assert (holder.pid, holder.is_writing) == (other.process.pid, True)
        other.tell("write 7")

        async def seen() -> tuple[int, int] | None:
            return version(cache)

        await wait_until(seen, lambda found: found == (1, 7), describe="what the other wrote")
        assert cache.positions(0) == {PARTITION: 7}
        await other.kill()
        assert not holder_of(tmp_path).is_writing
        assert cache.try_to_write()
        assert holder_of(tmp_path).is_writing
        cache.apply(0, (state(1, 8),), {PARTITION: 8})
        assert version(cache) == (1, 8)
        cache.close()
        assert not holder_of(tmp_path).is_writing
    finally:
        await other.kill()


async def test_who_does_not_write_throws_nothing_away(tmp_path: Path) -> None:
    old = await Other.start(tmp_path, "an older boot")
    try:
        assert await old.heard() == "writer"
        old.tell("write 7")
        cache = Cache.open(tmp_path, boot_id="a boot")
        assert not cache.is_writer
        # It sees nothing of the other identity, and leaves it alone.
        assert version(cache) is None
        assert not cache.head().complete
        assert (holder_of(tmp_path).environment / "data.mdb").exists()
        reader = await Other.start(tmp_path, "an older boot")
        assert await reader.heard() == "reader"
        await old.kill()
        # The next who starts finds the lock free and throws away what is of another identity.
        cache.close()
        cache = Cache.open(tmp_path, boot_id="a boot")
        assert cache.is_writer
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            ["lock", holder_of(tmp_path).environment.name]
        )
        cache.close()
        # What is left of the older version must not come back and write where nobody looks.
        reader.tell("take")
        assert await reader.heard() == ""
        assert await reader.process.wait() != 0
    finally:
        await old.kill()
        await reader.kill()


async def test_a_cache_that_was_thrown_away_is_not_written(tmp_path: Path) -> None:
    old = Cache.open(tmp_path, boot_id="an older boot")
    old.stop_writing()
    new = Cache.open(tmp_path, boot_id="a boot")
    new.stop_writing()
    with pytest.raises(CacheSupersededError):
        old.try_to_write()
    assert not old.is_writer
    # The lock is free for who may have it.
    assert new.try_to_write()
    old.close()
    new.close()


async def test_any_process_may_ask_for_a_rebuild(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, boot_id="a boot")
    other = await Other.start(tmp_path)
    try:
        assert await other.heard() == "reader"
        other.tell("ask")
        assert await other.heard() == "1"
        assert cache.rebuilds() == (1, 0)
    finally:
        await other.kill()
        cache.close()


def test_a_cache_is_found_by_who_wrote_it_last(tmp_path: Path) -> None:
    with pytest.raises(NoCacheError):
        holder_of(tmp_path)
    with pytest.raises(NoCacheError):
        Cache.open_in_use(tmp_path / "nowhere")
    cache = Cache.open(tmp_path, boot_id="a boot")
    cache.apply(0, (replace(state(1, 3), key=KEY),), {})
    cache.close()
    found = Cache.open_in_use(tmp_path)
    assert version(found) == (1, 3)
    assert not found.try_to_write()
    found.close()
    (tmp_path / "lock").write_text("{")
    with pytest.raises(NoCacheError):
        holder_of(tmp_path)


def test_files_of_an_older_layout_are_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("an older layout")
    (tmp_path / "data.mdb").write_bytes(b"")
    Cache.open(tmp_path, boot_id="a boot").close()
    assert len(list(tmp_path.iterdir())) == 2
