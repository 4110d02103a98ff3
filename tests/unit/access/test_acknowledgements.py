"""What an instance tells of itself, who of its processes does, and that nobody is harmed where it cannot."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog.testing
from aiokafka.errors import KafkaConnectionError

from access.acknowledgements import TOPIC, Acknowledgements, InstanceFile
from access.feed import Applied
from access.folder import CacheFolder
from contracts.envelope import Envelope, decode
from contracts.events.access import RecordsApplied
from contracts.identifiers import new_id
from infra.kafka.clients import LogWatch, Outgoing, RecordProducer, RecordReader
from infra.tasks import end_tasks
from tests.harness.access import grant
from tests.harness.local_access import LocalAccess, local_access
from tests.harness.waiting import wait_until

MEMBERSHIPS = "auth.memberships.v1"


class Ear:
    """A port to Kafka with one topic, which can be away or slow."""

    topic_prefix = "test."

    def __init__(self) -> None:
        self.heard: list[Outgoing] = []
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.given_up = 0

    def producer(self, **_: object) -> RecordProducer:
        return _Mouth(self)

    def reader(self, **_: object) -> RecordReader:
        raise NotImplementedError

    def watch(self, **_: object) -> LogWatch:
        raise NotImplementedError

    def words(self) -> list[Envelope[RecordsApplied]]:
        return [decode(each.value or b"", (RecordsApplied,)) for each in self.heard]


class _Mouth:
    def __init__(self, ear: Ear) -> None:
        self._ear = ear

    async def start(self) -> None:
        if self._ear.is_away:
            raise KafkaConnectionError

    async def partition_count(self, _: str) -> int:
        return 1

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> tuple[int, int]:
        assert (topic, partition) == ("test.access.acknowledgements.v1", 0)
        await self._ear.answers.wait()
        if self._ear.is_away:
            raise KafkaConnectionError
        self._ear.heard += records
        return len(self._ear.heard) - len(records), len(records)

    async def give_up(self) -> None:
        self._ear.given_up += 1


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalAccess]:
    with local_access(tmp_path / "cache") as found:
        found.hold(grant(found.user_id))
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
async def ear() -> Ear:
    return Ear()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("access.acknowledgements.INTERVAL_SECONDS", 0.005)


def acknowledgements(ear: Ear, local: LocalAccess, folder: Path) -> Acknowledgements:
    return Acknowledgements(kafka=ear, service="finance", folder=folder, clock=local.clock)


@asynccontextmanager
async def acknowledging(told: Acknowledgements, local: LocalAccess) -> AsyncIterator[None]:
    """Until the block ends, without a sign-off."""
    task = asyncio.create_task(told.run(local.path))
    try:
        yield
    finally:
        await end_tasks(task)


async def until(ear: Ear, accepted: Callable[[list[Envelope[RecordsApplied]]], Any], describe: str) -> None:
    async def is_accepted() -> bool:
        return bool(accepted(ear.words()))

    await wait_until(is_accepted, bool, describe=describe)


def applied(number: int = 1, event_id: UUID | None = None) -> Applied:
    return Applied(MEMBERSHIPS, event_id or new_id(), 1, number, b"subject")


async def test_it_tells_what_its_active_generation_has_and_how_fresh_it_is(
    ear: Ear, local: LocalAccess, folder: Path
) -> None:
    local.path.cache.note_topic_ids(0, {MEMBERSHIPS: "A" * 22})
    local.path.cache.apply(0, (), {(MEMBERSHIPS, 3): 17, (MEMBERSHIPS, 1): 4, ("auth.sessions.v1", 0): 9})
    told = acknowledgements(ear, local, folder)
    async with acknowledging(told, local):
        await until(ear, lambda words: len(words) >= 2, "two acknowledgements")
    first, second = ear.words()[:2]
    assert (first.data.service, first.data.status, first.data.generation) == ("finance", "serving", 1)
    assert first.data.generation_complete
    assert first.data.fresh_as_of == {"auth": local.clock(), "entitlements": local.clock()}
    # Of a topic whose id is not known no position says anything.
    assert [(each.topic, each.partition, each.next_offset) for each in first.data.positions] == [
        (MEMBERSHIPS, 1, 4),
        (MEMBERSHIPS, 3, 17),
    ]
    assert first.occurred_at == local.clock()
    assert ear.heard[0].key == TOPIC.record_key(first) == first.data.instance.encode()
    assert (second.epoch, second.version) == (first.epoch, first.version + 1)
    assert second.data.instance == first.data.instance


async def test_each_state_is_told_once_with_the_time_it_came_to_decide(
    ear: Ear, local: LocalAccess, folder: Path
) -> None:
    told = acknowledgements(ear, local, folder)
    record = applied(7)
    told.note([record])
    noted_at = local.clock()
    local.clock.advance(seconds=1)
    async with acknowledging(told, local):
        await until(ear, lambda words: len(words) >= 3, "three acknowledgements")
    first, *others = ear.words()
    (listed,) = first.data.records
    assert (listed.topic, listed.event_id, listed.epoch, listed.version) == (MEMBERSHIPS, record.event_id, 1, 7)
    assert listed.applied_at == noted_at
    assert all(each.data.records == () for each in others)


async def test_an_instance_that_cannot_decide_says_so(ear: Ear, local: LocalAccess, folder: Path) -> None:
    local.clock.advance(seconds=301)
    async with acknowledging(acknowledgements(ear, local, folder), local):
        await until(ear, lambda words: words, "an acknowledgement")
        local.freshen()
        await until(ear, lambda words: words[-1].data.status == "serving", "it serves again")
        local.freshen(complete=False)
        await until(ear, lambda words: words[-1].data.status == "not_ready", "it is not complete")
    assert ear.words()[0].data.status == "not_ready"
    assert not ear.words()[-1].data.generation_complete


async def test_without_kafka_nothing_is_lost_but_acknowledgements(ear: Ear, local: LocalAccess, folder: Path) -> None:
    told = acknowledgements(ear, local, folder)
    async with acknowledging(told, local):
        await until(ear, lambda words: words, "an acknowledgement")
        ear.is_away = True
        events = [new_id() for _ in range(3)]
        told.note([applied(event_id=event_id) for event_id in events])
        with structlog.testing.capture_logs() as lines:

            async def given_up() -> int:
                return ear.given_up

            await wait_until(given_up, lambda count: count >= 3, describe="it has tried again and again")
        # Once: an outage of an hour is not 3,600 lines.
        assert [line["event"] for line in lines] == ["what was applied cannot be acknowledged"]
        ear.is_away = False
        await until(ear, lambda words: any(each.data.records for each in words), "it tells what it kept")
    assert [each.event_id for word in ear.words() for each in word.data.records] == events


async def test_what_is_kept_is_bounded_and_the_latest(ear: Ear, local: LocalAccess, folder: Path) -> None:
    told = acknowledgements(ear, local, folder)
    records = [applied(number) for number in range(1, 2001)]
    for start in range(0, len(records), 700):
        told.note(records[start : start + 700])
    async with acknowledging(told, local):
        await until(ear, lambda words: words, "an acknowledgement")
    assert [each.event_id for each in ear.words()[0].data.records] == [each.event_id for each in records[-500:]]


async def test_what_comes_while_an_acknowledgement_is_on_its_way_is_told_next(
    ear: Ear, local: LocalAccess, folder: Path
) -> None:
    told = acknowledgements(ear, local, folder)
    first, second = applied(1), applied(2)
    ear.answers.clear()
    told.note([first])
    async with acknowledging(told, local):

        async def on_its_way() -> bool:
            return not told._applied

        await wait_until(on_its_way, bool, describe="the first is on its way")
        told.note([second])
        ear.answers.set()
        await until(ear, lambda words: len(words) >= 2, "two acknowledgements")
    assert [[each.event_id for each in word.data.records] for word in ear.words()[:2]] == [
        [first.event_id],
        [second.event_id],
    ]


async def test_only_the_process_that_writes_the_cache_tells_of_it(ear: Ear, local: LocalAccess, folder: Path) -> None:
    local.path.cache.stop_writing()
    told = acknowledgements(ear, local, folder)
    told.note([applied()])
    async with acknowledging(told, local):

        async def noted() -> int:
            return len(told._applied)

        await wait_until(noted, lambda count: count == 0, describe="it has looked whether it writes")
        assert ear.heard == []
        local.path.cache.try_to_write()
        await until(ear, lambda words: words, "it tells when it writes")
    assert ear.words()[0].data.records == ()


# Signing off.


async def test_one_that_is_stopped_signs_off(ear: Ear, local: LocalAccess, folder: Path) -> None:
    told = acknowledgements(ear, local, folder)
    async with acknowledging(told, local):
        await until(ear, lambda words: words, "an acknowledgement")
    await told.sign_off(local.path)
    before, last = ear.words()[-2:]
    assert (last.data.status, last.data.instance) == ("stopped", before.data.instance)
    assert ear.given_up


async def test_while_another_process_uses_the_cache_nobody_signs_off(
    ear: Ear, local: LocalAccess, folder: Path
) -> None:
    other = InstanceFile(folder)
    other.hold()
    told = acknowledgements(ear, local, folder)
    async with acknowledging(told, local):
        await until(ear, lambda words: words, "an acknowledgement")
    await told.sign_off(local.path)
    assert {each.data.status for each in ear.words()} == {"serving"}
    assert other.is_last()


@pytest.mark.parametrize("away", ["away", "silent"])
async def test_one_that_is_not_heard_stops_all_the_same(ear: Ear, local: LocalAccess, folder: Path, away: str) -> None:
    told = acknowledgements(ear, local, folder)
    async with acknowledging(told, local):
        await until(ear, lambda words: words, "an acknowledgement")
    count = len(ear.heard)
    ear.is_away = away == "away"
    if away == "silent":
        ear.answers.clear()
    async with asyncio.timeout(3):
        await told.sign_off(local.path)
    assert len(ear.heard) == count


async def test_one_that_was_never_heard_or_does_not_write_has_nothing_to_sign_off(
    ear: Ear, local: LocalAccess, folder: Path
) -> None:
    await acknowledgements(ear, local, folder).sign_off(local.path)
    told = acknowledgements(ear, local, folder)
    async with acknowledging(told, local):
        await until(ear, lambda words: words, "an acknowledgement")
    local.path.cache.stop_writing()
    await told.sign_off(local.path)
    assert {each.data.status for each in ear.words()} == {"serving"}


# Who an instance is.


async def restarted(ear: Ear, local: LocalAccess, folder: Path) -> str:
    told = acknowledgements(ear, local, folder)
    count = len(ear.heard)
    async with acknowledging(told, local):
        await until(ear, lambda words: len(words) > count, "an acknowledgement")
    told._instance.close()
    return ear.words()[-1].data.instance


async def test_a_new_process_on_the_same_cache_is_the_same_instance_and_its_versions_go_on(
    ear: Ear, local: LocalAccess, folder: Path
) -> None:
    first = await restarted(ear, local, folder)
    local.clock.advance(seconds=1)
    assert await restarted(ear, local, folder) == first
    versions = [(each.epoch, each.version) for each in ear.words()]
    assert versions == sorted(set(versions))


def test_two_caches_are_two_instances(tmp_path: Path) -> None:
    names = set()
    for name in ("one", "other"):
        CacheFolder(tmp_path / name, "a" * 32).open()
        held = InstanceFile(tmp_path / name)
        held.hold()
        names |= {held.id(), held.id()}
        held.close()
    assert len(names) == 2


def test_a_cache_of_another_version_in_the_same_folder_is_another_instance(tmp_path: Path) -> None:
    names = []
    for identity in ("a" * 32, "b" * 32):
        folder = CacheFolder(tmp_path, identity)
        folder.open()
        held = InstanceFile(tmp_path)
        held.hold()
        names.append(held.id())
        held.close()
        folder.unlock()
    assert names[0] != names[1]


def test_a_file_that_a_crash_left_empty_is_written_anew(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, "a" * 32)
    folder.open()
    (folder.environment / "instance").touch(mode=0o600)
    held = InstanceFile(tmp_path)
    held.hold()
    assert UUID(held.id()).version == 7


def test_before_there_is_a_cache_there_is_nothing_to_hold(tmp_path: Path) -> None:
    held = InstanceFile(tmp_path)
    held.hold()
    assert not held.is_last()
    with pytest.raises(RuntimeError):
        held.id()
