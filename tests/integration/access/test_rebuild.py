"""When a cache is filled again, from what, and what decides meanwhile."""

import asyncio
import itertools
from collections import Counter
from datetime import UTC, datetime

import lmdb
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # not marked as exported

from access import digest
from access.cache import Quarantine, Upsert
from access.freshness import Bounds
from access.ingest import COMPANIES, HEARTBEAT_TOPICS, MEMBERSHIPS, STATE_TOPICS, partition_of
from access.records import compile_membership, entitlement_key, membership_key
from contracts.events.auth import MembershipStatus
from contracts.identifiers import UserId, new_id
from contracts.problems import Reason
from contracts.topics import wire_name
from infra.kafka.bootstrap import bootstrap
from tests.harness.access import Sources, grant, standing_clocks
from tests.harness.clock import FakeClock
from tests.harness.waiting import wait_until
from tests.integration.access.asking import deciding, hear, is_ready, publish_allowed, reason, until_reason
from tests.integration.access.conftest import Instance, StartInstance


def generation(instance: Instance) -> int:
    return instance.path.cache.head().generation


async def rebuilt(instance: Instance) -> None:
    before = generation(instance)
    instance.path.request_rebuild()
    assert instance.path.status().is_rebuilding
    await instance.until(lambda path: path.status().generation == before + 1, "the other generation is active")
    assert not instance.path.status().is_rebuilding


async def make_topics_again(sources: Sources, *topics: str) -> None:
    """Delete topics and create them, empty and with other ids, under the same names."""
    admin = AdminClient(sources.kafka.confluent())
    wires = [wire_name(sources.kafka.topic_prefix, topic) for topic in topics]
    for answer in admin.delete_topics(wires).values():
        await asyncio.to_thread(answer.result)

    async def remaining() -> list[str]:
        return [wire for wire in wires if wire in admin.list_topics(timeout=5).topics]

    await wait_until(remaining, lambda left: not left, describe="the topics are gone")
    every = [*STATE_TOPICS.values(), *HEARTBEAT_TOPICS.values()]
    await asyncio.to_thread(bootstrap, sources.kafka, every, {})
    for subject in [each for each in sources._ends if each[0] in topics]:
        del sources._ends[subject]


async def test_a_rebuild_equals_what_it_replaces(sources: Sources, start_instance: StartInstance) -> None:
    await publish_allowed(sources)
    for number in range(20):
        user = UserId(new_id())
        await sources.publish(grant(user, scopes={"business_unit": (str(new_id()),), "event": "*"}))
        if number % 3 == 0:
            await sources.publish(
                grant(user, permissions={"finance.expenses.approve": datetime(2030, 1, 1, tzinfo=UTC)})
            )
    await sources.beat()
    instance = await start_instance()
    await until_reason(instance, sources, None)
    before = digest.digests(instance.path.cache)
    assert len(before) == 23
    await rebuilt(instance)
    assert digest.digests(instance.path.cache) == before
    assert digest.combined(digest.digests(instance.path.cache)) == digest.combined(before)
    assert reason(instance, sources) is None
    await sources.publish(grant(sources.user_id, permissions=()))
    await until_reason(instance, sources, Reason.PERMISSION_MISSING)
    assert digest.digests(instance.path.cache) != before
    # And back to the generation it began with.
    await rebuilt(instance)
    assert reason(instance, sources) is Reason.PERMISSION_MISSING


async def test_a_replay_from_zero_while_deciding_refuses_nothing_and_allows_nobody_new(
    sources: Sources, start_instance: StartInstance
) -> None:
    await publish_allowed(sources)
    allowed, revoked = [UserId(new_id()) for _ in range(300)], [UserId(new_id()) for _ in range(300)]
    await asyncio.gather(*(sources.publish(grant(user)) for user in allowed + revoked))
    await asyncio.gather(*(sources.publish(grant(user, status=MembershipStatus.REMOVED)) for user in revoked))
    await sources.beat()
    instance = await start_instance()
    await until_reason(instance, sources, None)
    await until_reason(instance, sources, Reason.MEMBERSHIP_INACTIVE, revoked[-1])
    answers: Counter[tuple[str, Reason | None]] = Counter()
    is_over = asyncio.Event()

    async def decide() -> None:
        while not is_over.is_set():
            for user, gone in zip(allowed, revoked, strict=True):
                answers["allowed", reason(instance, sources, user)] += 1
                answers["revoked", reason(instance, sources, gone)] += 1
            await asyncio.sleep(0)

    async def revoke_and_grant() -> None:
        """News go on while it is filled: each takes effect, and no heartbeat fails to come."""
        while not is_over.is_set():
            for status, expected in (
                (MembershipStatus.REMOVED, Reason.MEMBERSHIP_INACTIVE),
                (MembershipStatus.ACTIVE, None),
            ):
                await sources.publish(grant(sources.user_id, status=status))
                await until_reason(instance, sources, expected)
            await sources.beat()

    deciding = [asyncio.create_task(decide()), asyncio.create_task(revoke_and_grant())]
    try:
        for _ in range(3):
            await rebuilt(instance)
    finally:
        is_over.set()
        await asyncio.gather(*deciding)
    assert set(answers) == {("allowed", None), ("revoked", Reason.MEMBERSHIP_INACTIVE)}
    assert generation(instance) == 4
    assert instance.path.status().flags == ()


async def test_what_only_a_rebuild_has_read_proves_nothing_of_what_decides(
    sources: Sources, start_instance: StartInstance
) -> None:
    instance = await deciding(sources, start_instance)
    cache = instance.path.cache
    proven = [owner.as_of for owner in cache.head().owners]
    (live,) = instance.kafka.readers
    await live.hold_back(wire_name(sources.kafka.topic_prefix, MEMBERSHIPS))
    await sources.publish(grant(sources.user_id, permissions=()))
    await hear(instance, sources)
    # The rebuild comes to the revocation and to all else of Auth, and not to its end.
    instance.kafka.held_back = frozenset({wire_name(sources.kafka.topic_prefix, COMPANIES)})
    instance.path.request_rebuild()
    await instance.until(
        lambda _: all(
            cache.positions(1 - cache.head().active).get(partition, 0) >= end
            for partition, end in sources._ends.items()
            if partition[0] in STATE_TOPICS and partition[0] != COMPANIES
        ),
        "the rebuild has read all of Auth",
    )
    entitlements, auth = (owner.as_of for owner in cache.head().owners)
    assert entitlements > proven[0]
    assert auth == proven[1]
    assert reason(instance, sources) is None


async def test_who_is_cancelled_while_one_client_ends_ends_both(
    sources: Sources, start_instance: StartInstance
) -> None:
    instance = await deciding(sources, start_instance)
    instance.kafka.may_stop.clear()
    instance.path.request_rebuild()
    await instance.kafka.stopping.wait()
    instance.task.cancel()
    instance.kafka.may_stop.set()
    await asyncio.wait([instance.task])
    assert [reader.is_stopped for reader in instance.kafka.readers] == [True, True]


async def test_a_quarantine_outlives_a_rebuild(sources: Sources, start_instance: StartInstance) -> None:
    compacted, poisoned = UserId(new_id()), UserId(new_id())
    await publish_allowed(sources)
    for user in (compacted, poisoned):
        await sources.publish(grant(user))
    await sources.send_raw(MEMBERSHIPS, f"{sources.company_id}/{poisoned}".encode(), b"{")
    await sources.beat()
    instance = await start_instance()
    await instance.until(is_ready, "ready")
    assert reason(instance, sources, poisoned) is Reason.STATE_UNKNOWN
    # As where compaction took the record away that could not be read, and left the one before it.
    instance.path.cache.apply(0, (Quarantine(membership_key(sources.company_id, compacted), "broken"),), {})
    await rebuilt(instance)
    for user in (compacted, poisoned):
        assert reason(instance, sources, user) is Reason.STATE_UNKNOWN
    assert len(instance.path.status().flags) == 2
    assert reason(instance, sources) is None
    await sources.publish(grant(poisoned))
    await until_reason(instance, sources, None, poisoned)


async def test_what_lay_in_another_partition_than_its_keys_locks_nobody_once_it_is_answered(
    sources: Sources, start_instance: StartInstance
) -> None:
    """The owner answers in the key's own partition, which may be read before all others, and in the other one."""
    instance = await deciding(sources, start_instance)
    key = f"{sources.company_id}/{sources.user_id}".encode()
    topic, own = partition_of(MEMBERSHIPS, key)
    others = sorted({*range(STATE_TOPICS[topic].partitions)} - {own})
    neighbours = {
        partition_of(topic, f"{sources.company_id}/{user}".encode())[1]: user
        for user in (UserId(new_id()) for _ in range(64))
    }
    await sources.publish(grant(sources.user_id, permissions=()))
    await until_reason(instance, sources, Reason.PERMISSION_MISSING)
    for number in others:
        await sources.publish(grant(neighbours[number]))
        await sources.send_raw(MEMBERSHIPS, key, b"{", partition=number)
        await until_reason(instance, sources, Reason.STATE_UNKNOWN, neighbours[number])
    assert reason(instance, sources) is Reason.PERMISSION_MISSING
    for number in others:
        await sources.send_raw(MEMBERSHIPS, key, None, partition=number)
        await until_reason(instance, sources, None, neighbours[number])
    await sources.beat()
    await rebuilt(instance)
    assert instance.path.status().flags == ()
    assert reason(instance, sources) is Reason.PERMISSION_MISSING
    assert reason(instance, sources, neighbours[others[0]]) is None


async def test_what_the_log_has_only_older_stays_and_is_unknown(
    sources: Sources, start_instance: StartInstance
) -> None:
    instance = await deciding(sources, start_instance)
    key = membership_key(sources.company_id, sources.user_id)
    removed = grant(sources.user_id, status=MembershipStatus.REMOVED)
    # As where the record that was read has been taken away by an older one that came behind it.
    newer = Upsert(key, 1, 2, compile_membership(removed, 1, 2, ("finance",)))
    instance.path.cache.apply(0, (newer,), {})
    assert reason(instance, sources) is Reason.MEMBERSHIP_INACTIVE
    await rebuilt(instance)
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    assert [flag.key for flag in instance.path.status().flags] == [key]
    assert instance.path.cache.read((entitlement_key(sources.company_id),))[1][0] is not None
    await sources.publish(grant(sources.user_id), version=3)
    await until_reason(instance, sources, None)


async def test_another_topic_under_the_name_starts_the_cache_over(
    sources: Sources, start_instance: StartInstance
) -> None:
    instance = await deciding(sources, start_instance)
    tokens = instance.path.keys_generation
    sources.topic_id = "B" * 22
    await sources.beat(ahead=1)
    await instance.until(lambda _: generation(instance) == 2, "the cache started over")
    # Nothing of the old state decides until the new one is complete.
    await instance.until(lambda path: len(list(path.cache.records())) == 3, "the log is read again")
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    assert not is_ready(instance.path)
    assert instance.path.keys_generation > tokens
    await hear(instance, sources, times=2)
    await until_reason(instance, sources, None)


async def test_offsets_the_log_does_not_have_start_the_cache_over(
    sources: Sources, start_instance: StartInstance
) -> None:
    instance = await deciding(sources, start_instance)
    instance.task.cancel()
    await asyncio.wait([instance.task])
    instance.path.cache.apply(0, (), {(MEMBERSHIPS, 0): 1000})
    await instance.restart()
    await instance.until(lambda _: generation(instance) == 2, "the cache started over")
    # The newest heartbeat there is and the next one may be of a log that was longer: the owner had not looked yet.
    await instance.until(lambda path: len(list(path.cache.records())) == 3, "the log is read again")
    await hear(instance, sources)
    await sources.publish(grant(UserId(new_id())))
    await instance.until(lambda path: len(list(path.cache.records())) == 4, "what follows is read too")
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    await hear(instance, sources)
    await until_reason(instance, sources, None)


async def test_a_topic_made_again_is_found_out_before_anybody_tells_of_it(
    sources: Sources, start_instance: StartInstance
) -> None:
    """The new topic is as long as the old one was, and the newest heartbeat is still of the old one."""
    await publish_allowed(sources)
    for _ in range(2):
        await sources.publish(grant(sources.user_id))
    await sources.beat()
    instance = await start_instance()
    await until_reason(instance, sources, None)
    key = f"{sources.company_id}/{sources.user_id}".encode()
    partition = partition_of(MEMBERSHIPS, key)
    stored = instance.path.status().positions[partition]
    await instance.stop()
    await make_topics_again(sources, MEMBERSHIPS)
    # The first record of the new topic is what the old state does not know of, and never would.
    await sources.publish(grant(sources.user_id, status=MembershipStatus.REMOVED))
    others = (f"{sources.company_id}/{new_id()}".encode() for _ in itertools.count())
    other = next(key for key in others if partition_of(MEMBERSHIPS, key) == partition)
    while sources._ends.get(partition, 0) < stored:
        await sources.send_raw(MEMBERSHIPS, other, b"{}")
    instance.start()
    await instance.until(lambda _: generation(instance) == 2, "the cache started over")
    sources.topic_id = "B" * 22
    await hear(instance, sources, times=3)
    await until_reason(instance, sources, Reason.MEMBERSHIP_INACTIVE)


async def test_news_after_a_silence_are_read_by_a_new_client(sources: Sources, start_instance: StartInstance) -> None:
    """A process that was stopped for a while reads on from a log that may be another one by now."""
    clock = FakeClock(datetime.now(UTC))
    instance = await deciding(sources, start_instance, standing_clocks(clock), as_of=clock())
    (reader,) = instance.kafka.readers
    await reader.stand_still()
    await sources.publish(grant(sources.user_id, permissions=()))
    clock.advance(seconds=5.1)
    reader.running.set()
    await until_reason(instance, sources, Reason.PERMISSION_MISSING)
    assert len(instance.kafka.readers) == 2
    assert generation(instance) == 1


async def test_once_an_owner_was_restored_its_log_is_looked_at_by_a_new_client(
    sources: Sources, start_instance: StartInstance
) -> None:
    """What the log had lost by then is in no database and in no log: only who has read it knows of it."""
    instance = await deciding(sources, start_instance)
    sources.epoch = 2
    await sources.beat("auth")
    await instance.until(lambda _: len(instance.kafka.readers) == 2, "the client is built anew")
    await sources.publish(grant(sources.user_id, permissions=()))
    await sources.beat("auth")
    await until_reason(instance, sources, Reason.PERMISSION_MISSING)
    # Once for each epoch.
    assert len(instance.kafka.readers) == 2
    assert generation(instance) == 1


async def test_nothing_is_read_of_a_topic_before_its_owner_has_told_its_id(
    sources: Sources, start_instance: StartInstance
) -> None:
    await publish_allowed(sources)
    instance = await start_instance()
    await sources.beat("auth")
    await instance.until(lambda path: MEMBERSHIPS in path.cache.topic_ids(0), "Auth is heard")
    (reader,) = instance.kafka.readers
    heard = reader.reads
    await sources.beat("auth")
    await instance.until(lambda _: reader.reads > heard + 1, "it reads on")
    assert reader.assigned == {wire_name(sources.kafka.topic_prefix, topic.name) for topic in HEARTBEAT_TOPICS.values()}
    assert not instance.path.cache.positions(0)
    await sources.beat()
    await until_reason(instance, sources, None)
    assert generation(instance) == 1


async def test_another_number_of_partitions_starts_the_cache_over(
    sources: Sources, start_instance: StartInstance
) -> None:
    instance = await deciding(sources, start_instance)
    await instance.stop()
    wire = wire_name(sources.kafka.topic_prefix, MEMBERSHIPS)
    admin = AdminClient(sources.kafka.confluent())
    for answer in admin.create_partitions([NewPartitions(wire, 7)]).values():
        await asyncio.to_thread(answer.result)
    instance.start()
    # And never again: in a partition more or less, no key is where it was.
    await instance.until(lambda _: generation(instance) > 1, "the cache started over")
    await sources.beat()
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    assert not instance.path.cache.positions(0)


async def test_who_was_away_for_half_the_retention_starts_over(sources: Sources, start_instance: StartInstance) -> None:
    clock = FakeClock(datetime.now(UTC))
    instance = await deciding(sources, start_instance, standing_clocks(clock), as_of=clock())
    await instance.stop()
    clock.advance(days=3, hours=11)
    await sources.beat(as_of=clock())
    instance.start()
    await until_reason(instance, sources, None)
    assert generation(instance) == 1
    await instance.stop()
    clock.advance(days=3, hours=13)
    await sources.beat(as_of=clock())
    instance.start()
    await instance.until(lambda _: generation(instance) == 2, "the cache started over")
    await hear(instance, sources, as_of=clock(), times=2)
    await until_reason(instance, sources, None)
    # An owner whose clock leaps is no reason: it is not believed either.
    await sources.beat(as_of=datetime.fromtimestamp(clock().timestamp() + 5 * 86_400, UTC))
    await until_reason(instance, sources, Reason.STATE_UNKNOWN)
    await sources.beat(as_of=clock())
    await until_reason(instance, sources, None)
    assert generation(instance) == 2


@pytest.mark.parametrize("fault", ["is_mute", "is_stuck"])
async def test_a_client_that_brings_nothing_is_built_anew(
    sources: Sources, start_instance: StartInstance, fault: str
) -> None:
    instance = await deciding(sources, start_instance, bounds=Bounds(silence_seconds=1, answer_seconds=1))
    reader, broken = instance.kafka.readers[-1], len(instance.kafka.readers)
    await reader.stand_still()
    setattr(reader, fault, True)
    reader.running.set()
    await sources.publish(grant(sources.user_id, permissions=()))
    await until_reason(instance, sources, Reason.PERMISSION_MISSING)
    assert len(instance.kafka.readers) > broken


async def test_a_cache_that_cannot_be_emptied_is_not_followed_into(
    sources: Sources, start_instance: StartInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await deciding(sources, start_instance)
    connected: list[int] = []

    def fail() -> None:
        connected.append(len(instance.kafka.readers))
        raise lmdb.DiskError("no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(instance.path.cache, "start_over", fail)
        sources.topic_id = "B" * 22
        await sources.beat()
        # It goes on trying, and connects to nothing meanwhile.
        await instance.until(lambda path: len(connected) > 2 or not is_ready(path), "it tries again")
        assert len(connected) > 2
        assert set(connected) == {1}
    await instance.until(lambda _: generation(instance) == 2, "the cache started over")
    await hear(instance, sources, times=2)
    await until_reason(instance, sources, None)


async def test_a_feed_that_has_ended_shows_in_readiness(sources: Sources, start_instance: StartInstance) -> None:
    await publish_allowed(sources)
    await sources.beat()
    instance = await start_instance()
    await instance.until(is_ready, "ready")
    instance.task.cancel()
    await instance.until(lambda path: not is_ready(path), "not ready")
    assert "has ended" in (instance.path.ready.why or "")
