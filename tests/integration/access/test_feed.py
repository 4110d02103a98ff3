"""The access path on a real Kafka: what is applied, what is not, and when an instance may decide."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.decision import Requirement
from access.freshness import Bounds, Clocks
from access.unknown import StateUnknownError
from contracts.events.auth import MembershipStatus, RevokedSession, SessionsChanged, SigningKeyStatus
from contracts.identifiers import UserId, new_id
from contracts.problems import Reason
from infra.kafka.clients import Kafka
from tests.harness.access import Sources, catalog, entitled, grant, signing_key, standing_clocks
from tests.harness.clock import FakeClock
from tests.integration.access.asking import asked, deciding, is_ready, publish_allowed, reason, until_reason
from tests.integration.access.conftest import StartInstance


async def test_grant_and_revocation_arrive(sources: Sources, start_instance: StartInstance) -> None:
    await publish_allowed(sources)
    await sources.beat()
    instance = await start_instance()
    await instance.until(is_ready, "ready")
    allowed = asked(instance, sources)
    assert allowed.reason is None
    assert allowed.age_us is not None
    assert allowed.age_us < 10_000_000
    await sources.publish(grant(sources.user_id, permissions=()))
    await until_reason(instance, sources, Reason.PERMISSION_MISSING)
    await sources.publish(grant(sources.user_id, status=MembershipStatus.REMOVED))
    await until_reason(instance, sources, Reason.MEMBERSHIP_INACTIVE)
    assert reason(instance, sources, new_id()) is Reason.NOT_A_MEMBER


async def test_nothing_is_decided_before_a_heartbeat_that_proves_every_partition(
    sources: Sources, start_instance: StartInstance
) -> None:
    await publish_allowed(sources)
    await sources.beat(left_out=1)
    await sources.beat(ahead=1)
    instance = await start_instance()
    await instance.until(lambda path: bool(path.cache.positions(0)), "the records are applied")
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    await sources.beat(as_of=datetime.now(UTC) - timedelta(seconds=30))
    await instance.until(
        lambda path: all(owner.as_of for owner in path.cache.head().owners), "the old heartbeat is applied"
    )
    assert not is_ready(instance.path)
    await sources.beat()
    await until_reason(instance, sources, None)


async def test_who_asked_is_told_of_what_decides(sources: Sources, start_instance: StartInstance) -> None:
    instance = await deciding(sources, start_instance)
    assert {(each.topic, each.epoch, each.version) for each in instance.applied} == {
        ("auth.permissions.v1", 1, 1),
        ("entitlements.companies.v1", 1, 1),
        ("auth.memberships.v1", 1, 1),
    }
    assert len({each.event_id for each in instance.applied}) == 3
    instance.applied.clear()
    # Older ones and what cannot be read decide nothing.
    await sources.publish(grant(sources.user_id), version=1)
    await sources.send_raw("auth.memberships.v1", f"{sources.company_id}/{new_id()}".encode(), b"{")
    await sources.publish(grant(sources.user_id, permissions=()))
    await until_reason(instance, sources, Reason.PERMISSION_MISSING)
    assert [(each.topic, each.version) for each in instance.applied] == [("auth.memberships.v1", 2)]
    # Neither does what a rebuild reads again.
    instance.path.request_rebuild()
    await instance.until(lambda path: path.status().generation == 2, "the other generation is active")
    assert len(instance.applied) == 1


async def test_older_states_never_come_back(sources: Sources, start_instance: StartInstance) -> None:
    instance = await deciding(sources, start_instance)
    removed = await sources.publish(grant(sources.user_id, status=MembershipStatus.REMOVED), version=7)
    assert removed == 7
    await until_reason(instance, sources, Reason.MEMBERSHIP_INACTIVE)
    late = [1, 2, 3, 4, 5, 6, 7] * 2
    random.Random(4).shuffle(late)  # noqa: S311  an order, not a secret
    for version in late:
        await sources.publish(grant(sources.user_id), version=version)
    marker = UserId(new_id())
    await sources.publish(grant(marker, permissions=()))
    await sources.beat()
    before = instance.path.cache.head().owners[1].heartbeat
    await sources.beat()
    await instance.until(lambda path: path.cache.head().owners[1].heartbeat > before, "all is applied")
    assert reason(instance, sources) is Reason.MEMBERSHIP_INACTIVE
    await sources.publish(grant(sources.user_id), version=1, epoch=2)
    await until_reason(instance, sources, None)


async def test_a_restart_goes_on_from_the_stored_offsets(sources: Sources, start_instance: StartInstance) -> None:
    instance = await deciding(sources, start_instance)
    stored = instance.path.status().positions
    await instance.stop()
    await sources.publish(grant(sources.user_id, status=MembershipStatus.REMOVED))
    await sources.beat()
    instance.start()
    # Ready at once from what it had, then on from there.
    assert instance.path.status().positions == stored
    assert reason(instance, sources) is None
    await until_reason(instance, sources, Reason.MEMBERSHIP_INACTIVE)
    assert instance.path.status().generation == 1


async def test_without_kafka_it_decides_until_the_bound(
    sources: Sources, start_instance: StartInstance, unreachable: Kafka
) -> None:
    clock = FakeClock(datetime.now(UTC))
    clocks = standing_clocks(clock)
    instance = await deciding(sources, start_instance, clocks, as_of=clock())
    await instance.restart(kafka=unreachable)
    assert is_ready(instance.path)
    clock.advance(seconds=45)
    assert asked(instance, sources, reading=False).reason is None
    clock.advance(seconds=1)
    stale = asked(instance, sources, reading=False)
    assert stale.reason is Reason.STATE_UNKNOWN
    assert stale.age_us == 46_000_000
    assert "46 s old" in (stale.detail or "")
    assert asked(instance, sources).reason is None
    # Administration is judged by the short bound on every method.
    assert instance.path.decide_company_admin(sources.company_id, sources.user_id).reason is Reason.STATE_UNKNOWN
    manage = Requirement.of("finance.rates.manage")
    assert manage.administration
    unknown = instance.path.decide(sources.company_id, sources.user_id, manage, reading=True)
    assert unknown.reason is Reason.STATE_UNKNOWN
    clock.advance(seconds=255)
    assert asked(instance, sources).reason is Reason.STATE_UNKNOWN
    assert not is_ready(instance.path)


async def test_another_boot_starts_from_nothing(
    sources: Sources, start_instance: StartInstance, unreachable: Kafka
) -> None:
    instance = await deciding(sources, start_instance)
    clocks = instance.clocks
    instance.clocks = Clocks(wall_us=clocks.wall_us, boot_us=clocks.boot_us, boot_id="another")
    await instance.restart(kafka=unreachable)
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    assert instance.path.cache.record_count() == 0


async def test_it_recovers_when_news_come_again(sources: Sources, start_instance: StartInstance) -> None:
    clock = FakeClock(datetime.now(UTC))
    instance = await deciding(sources, start_instance, standing_clocks(clock), as_of=clock())
    clock.advance(seconds=301)
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    await sources.beat("auth", as_of=clock())
    await instance.until(lambda path: (path.status().ages_seconds["auth"] or 0) < 10, "auth is fresh")
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    await sources.beat(as_of=clock())
    await until_reason(instance, sources, None)


async def test_a_heartbeat_from_the_future_stops_decisions(sources: Sources, start_instance: StartInstance) -> None:
    instance = await deciding(sources, start_instance)
    await sources.beat("auth", as_of=datetime.now(UTC) + timedelta(seconds=60))
    await until_reason(instance, sources, Reason.STATE_UNKNOWN)
    await sources.beat()
    await until_reason(instance, sources, None)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"type": "auth.grant-changed.v2"}',
        b'{"type": "auth.grant-changed.v1", "epoch": NaN}',
    ],
    ids=["tombstone", "empty", "not-utf-8", "deep", "major-version", "nan"],
)
async def test_what_cannot_be_read_locks_its_subject_only(
    sources: Sources, start_instance: StartInstance, value: bytes | None
) -> None:
    other = UserId(new_id())
    await publish_allowed(sources)
    await sources.publish(grant(other))
    await sources.beat()
    instance = await start_instance()
    await until_reason(instance, sources, None)
    key = f"{sources.company_id}/{sources.user_id}".encode()
    await sources.send_raw("auth.memberships.v1", key, value)
    await until_reason(instance, sources, Reason.STATE_UNKNOWN)
    assert reason(instance, sources, other) is None
    await instance.restart()
    # Known at once: the flag is stored with the offset.
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    assert len(instance.path.status().flags) == 1
    # The version it had lifts nothing, a newer one does.
    await sources.publish(grant(sources.user_id), version=1)
    await sources.publish(grant(other, permissions=()))
    await instance.until(lambda _: reason(instance, sources, other) is Reason.PERMISSION_MISSING, "all is applied")
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    await sources.publish(grant(sources.user_id))
    await until_reason(instance, sources, None)
    assert instance.path.status().flags == ()


async def test_an_unreadable_key_locks_its_partition_until_it_is_withdrawn(
    sources: Sources, start_instance: StartInstance
) -> None:
    instance = await deciding(sources, start_instance)
    key = f"{sources.company_id}/{sources.user_id}".encode()
    partitions = {user: _partition(f"{sources.company_id}/{user}".encode()) for user in (new_id() for _ in range(64))}
    elsewhere = next(user for user, partition in partitions.items() if partition != _partition(key))
    await sources.publish(grant(elsewhere))
    garbage = b"\xff" * 600
    await sources.send_raw("auth.memberships.v1", garbage, b"{}", partition=_partition(key))
    await until_reason(instance, sources, Reason.STATE_UNKNOWN)
    assert reason(instance, sources, elsewhere) is None
    await instance.restart()
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    await sources.send_raw("auth.memberships.v1", garbage[:-1], None, partition=_partition(key))
    await sources.publish(grant(elsewhere, permissions=()))
    await instance.until(lambda _: reason(instance, sources, elsewhere) is not None, "all is applied")
    assert reason(instance, sources) is Reason.STATE_UNKNOWN
    await sources.send_raw("auth.memberships.v1", garbage, None, partition=_partition(key))
    await until_reason(instance, sources, None)


def _partition(key: bytes) -> int:
    from access.ingest import MEMBERSHIPS, partition_of

    return partition_of(MEMBERSHIPS, key)[1]


async def test_a_restored_owner_is_unknown_until_it_has_published_all(
    sources: Sources, start_instance: StartInstance
) -> None:
    instance = await deciding(sources, start_instance)
    sources.epoch = 2
    await sources.beat(complete=False)
    await until_reason(instance, sources, Reason.STATE_UNKNOWN)
    await sources.publish(entitled("finance"), version=1)
    await sources.publish(catalog(), version=1)
    await sources.publish(grant(sources.user_id), version=1)
    # Its own state is of the new epoch, so it is known though others are not.
    await until_reason(instance, sources, None)
    assert reason(instance, sources, new_id()) is Reason.STATE_UNKNOWN
    await sources.beat()
    await instance.until(lambda _: reason(instance, sources, new_id()) is Reason.NOT_A_MEMBER, "the epoch is complete")


async def test_keys_and_sessions(sources: Sources, start_instance: StartInstance) -> None:
    key, forger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    session, other_session = new_id(), new_id()
    await sources.publish(signing_key("k1", key))
    await sources.publish(signing_key("forged", forger, root=forger))
    await sources.publish(
        SessionsChanged(
            user_id=sources.user_id,
            min_gen=3,
            revoked=(RevokedSession(sid=session, until=datetime(2030, 1, 1, tzinfo=UTC)),),
        )
    )
    instance = await start_instance(bounds=Bounds(hard_seconds=45))
    with pytest.raises(StateUnknownError):
        instance.path.signing_key("k1")
    with pytest.raises(StateUnknownError):
        instance.path.session_is_live(sources.user_id, session, 3)
    await sources.beat()
    await instance.until(is_ready, "ready")
    found = instance.path.signing_key("k1")
    assert found is not None
    assert found.public_bytes_raw() == key.public_key().public_bytes_raw()
    assert instance.path.signing_key("nobody") is None
    assert instance.path.signing_key("k" * 121) is None
    assert instance.path.signing_key("schlüssel") is None
    with pytest.raises(StateUnknownError):
        instance.path.signing_key("forged")
    assert not instance.path.session_is_live(sources.user_id, session, 3)
    assert not instance.path.session_is_live(sources.user_id, other_session, 2)
    assert instance.path.session_is_live(sources.user_id, other_session, 3)
    assert instance.path.session_is_live(new_id(), session, 0)
    generation = instance.path.keys_generation
    await sources.publish(signing_key("k1", key, status=SigningKeyStatus.REVOKED))
    await instance.until(lambda path: path.signing_key("k1") is None, "the key is revoked")
    assert instance.path.keys_generation > generation


async def test_no_key_is_refused_while_keys_are_not_fresh(sources: Sources, start_instance: StartInstance) -> None:
    clock = FakeClock(datetime.now(UTC))
    await sources.publish(signing_key("k1", Ed25519PrivateKey.generate()))
    await sources.publish(signing_key("k3", Ed25519PrivateKey.generate(), status=SigningKeyStatus.REVOKED))
    await sources.beat(as_of=clock())
    instance = await start_instance(standing_clocks(clock))
    await instance.until(is_ready, "ready")
    assert instance.path.signing_key("k2") is None
    assert instance.path.signing_key("k3") is None
    clock.advance(seconds=46)
    # The one may have come since, and the other may be believed again by a database that was restored.
    for kid in ("k2", "k3"):
        with pytest.raises(StateUnknownError):
            instance.path.signing_key(kid)
    assert instance.path.signing_key("k1") is not None
