"""Topics, users and rights on a real Kafka: what is declared is what is there, and nobody may do more."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, MessageSizeTooLargeError
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not mark what it exports
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from contracts.envelope import VALUE_SIZE_MAX_BYTES
from contracts.services import SERVICES
from contracts.topics import BATCH_SIZE_MAX_BYTES, TOPICS, group_prefix, wire_name
from infra.kafka.bootstrap import KafkaSilentError, RegistryFaultyError, Report, TopicMismatchError, bootstrap
from infra.kafka.connection import KafkaConnection
from tests.harness.runtime import Runtime

#: Users are the cluster's, not a prefix's: the harness gives its services this password too.
PASSWORD: Final = "principal of a test"
PRINCIPALS: Final = dict.fromkeys(SERVICES, PASSWORD)
MEMBERSHIPS: Final = "auth.memberships.v1"
SOME_TOPICS: Final = tuple(topic for topic in TOPICS if topic.name in {MEMBERSHIPS, "auth.heartbeats.v1"})
TIMEOUT_SECONDS: Final = 30.0


@pytest.fixture(scope="module", autouse=True)
def administrations_end() -> Iterator[None]:
    """Before the broker does."""
    yield
    administration.cache_clear()


@pytest.fixture
def admin(runtime: Runtime, kafka_admin: KafkaConnection) -> KafkaConnection:
    """The administrator of an installation of its own."""
    return replace(kafka_admin, topic_prefix=runtime.new_prefix())


@pytest.fixture(scope="module")
def installed(runtime: Runtime) -> KafkaConnection:
    """The administrator of an installation with all topics and users; tests that use it change nothing."""
    connection = replace(runtime.kafka_admin, topic_prefix=runtime.new_prefix())
    bootstrap(connection, TOPICS, PRINCIPALS)
    return connection


def as_user(admin: KafkaConnection, name: str, password: str = PASSWORD) -> KafkaConnection:
    return replace(admin, username=name, password=password)


@cache
def administration(connection: KafkaConnection) -> AdminClient:
    """One client each, kept: its answers end with it."""
    return AdminClient(connection.confluent())


def topic_names(admin: KafkaConnection) -> dict[str, Any]:
    found: dict[str, Any] = administration(admin).list_topics(timeout=TIMEOUT_SECONDS).topics
    return {name: topic for name, topic in found.items() if name.startswith(admin.topic_prefix)}


def acls(admin: KafkaConnection) -> set[AclBinding]:
    every = AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type]  # any name; the annotations leave it out
        ResourcePatternType.ANY,
        None,  # type: ignore[arg-type]  # any principal
        None,  # type: ignore[arg-type]  # any host
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    return set(administration(admin).describe_acls(every).result(TIMEOUT_SECONDS))


def acls_of(admin: KafkaConnection) -> set[AclBinding]:
    return {acl for acl in acls(admin) if acl.name.startswith(admin.topic_prefix)}


def settings_of(admin: KafkaConnection, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    (answer,) = administration(admin).describe_configs([resource]).values()
    return {key: entry.value for key, entry in answer.result(TIMEOUT_SECONDS).items()}


def create_topic(admin: KafkaConnection, name: str, partitions: int, config: Mapping[str, str]) -> None:
    topic = NewTopic(wire_name(admin.topic_prefix, name), num_partitions=partitions, config=dict(config))
    for answer in administration(admin).create_topics([topic]).values():
        answer.result(TIMEOUT_SECONDS)


def test_topics_are_created_as_declared(admin: KafkaConnection) -> None:
    report = bootstrap(admin, TOPICS, PRINCIPALS)
    names = {wire_name(admin.topic_prefix, topic.name): topic for topic in TOPICS}
    assert set(report.topics_created) == set(names) == set(topic_names(admin))
    for name, topic in names.items():
        assert len(topic_names(admin)[name].partitions) == topic.partitions
        assert settings_of(admin, name).items() >= topic.config.items()
        assert settings_of(admin, name)["min.insync.replicas"] == "1"


def test_a_second_run_changes_nothing(admin: KafkaConnection) -> None:
    first = bootstrap(admin, SOME_TOPICS, PRINCIPALS)
    assert first.topics_created
    assert first.rights_granted
    before = acls_of(admin)
    assert bootstrap(admin, SOME_TOPICS, PRINCIPALS) == Report()
    assert acls_of(admin) == before


def test_runs_at_once_agree(admin: KafkaConnection) -> None:
    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(lambda _: bootstrap(admin, TOPICS, {}), range(4)))
    created = [name for report in reports for name in report.topics_created]
    assert sorted(created) == sorted(topic_names(admin))
    assert bootstrap(admin, TOPICS, {}) == Report()


@pytest.mark.parametrize(
    ("partitions", "changes", "field", "expected", "found"),
    [
        (3, {}, "partitions", "6", "3"),
        (6, {"cleanup.policy": "delete"}, "cleanup.policy", "compact", "delete"),
        (6, {"retention.ms": "604800000"}, "retention.ms", "-1", "604800000"),
        (6, {"min.compaction.lag.ms": "0"}, "min.compaction.lag.ms", "3600000", "0"),
        (6, {"delete.retention.ms": "86400000"}, "delete.retention.ms", "604800000", "86400000"),
        (6, {"max.message.bytes": "100000"}, "max.message.bytes", str(BATCH_SIZE_MAX_BYTES), "100000"),
        (6, {"unclean.leader.election.enable": "true"}, "unclean.leader.election.enable", "false", "true"),
    ],
)
def test_another_topic_under_the_name_is_refused_and_nothing_changed(
    admin: KafkaConnection, partitions: int, changes: dict[str, str], field: str, expected: str, found: str
) -> None:
    declared = next(topic for topic in TOPICS if topic.name == MEMBERSHIPS)
    name = wire_name(admin.topic_prefix, MEMBERSHIPS)
    create_topic(admin, MEMBERSHIPS, partitions, {**declared.config, "min.insync.replicas": "1", **changes})
    with pytest.raises(TopicMismatchError) as refused:
        bootstrap(admin, TOPICS, PRINCIPALS)
    (mismatch,) = refused.value.mismatches
    assert (mismatch.topic, mismatch.field, mismatch.expected, mismatch.found) == (name, field, expected, found)
    assert str(refused.value) == f"{name}: {field} is {found}, the registry says {expected}"
    assert set(topic_names(admin)) == {name}
    assert acls_of(admin) == set()


def test_fewer_replicas_than_asked_are_refused(admin: KafkaConnection) -> None:
    bootstrap(admin, SOME_TOPICS, {})
    with pytest.raises(TopicMismatchError) as refused:
        bootstrap(admin, SOME_TOPICS, PRINCIPALS, replication_factor=3)
    wrong = {(mismatch.field, mismatch.expected, mismatch.found) for mismatch in refused.value.mismatches}
    assert wrong == {("replicas", "3", "1"), ("min.insync.replicas", "2", "1")}
    assert acls_of(admin) == set()


def test_a_faulty_registry_is_refused_before_kafka_is_asked() -> None:
    nowhere = KafkaConnection(bootstrap_servers="127.0.0.1:1", username="admin", password="x")
    with pytest.raises(RegistryFaultyError, match="declared twice"):
        bootstrap(nowhere, (*TOPICS, TOPICS[0]), {})
    with pytest.raises(RegistryFaultyError, match="'market' is no service"):
        bootstrap(nowhere, TOPICS, {"market": PASSWORD})


def outcomes_of_writing(connection: KafkaConnection, names: Iterable[str]) -> dict[str, str]:
    """Per topic `written`, or the name of the error."""
    outcomes: dict[str, str] = {}
    producer = Producer({**connection.confluent(), "acks": "all", "message.timeout.ms": 20_000})

    def note(name: str) -> Callable[[KafkaError | None, Message], None]:
        return lambda error, _: outcomes.update({name: str(error.name()) if error else "written"})

    for name in names:
        producer.produce(name, key=b"k", value=b"{}", partition=0, on_delivery=note(name))
    assert producer.flush(TIMEOUT_SECONDS) == 0
    return outcomes


def outcomes_of_reading(connection: KafkaConnection, names: Iterable[str]) -> dict[str, str]:
    """Per topic `read`, or the name of the error. Each has a record in partition 0."""
    wanted = set(names)
    outcomes: dict[str, str] = {}
    with consumer_of(connection, group=f"{connection.topic_prefix}{connection.username}.test") as consumer:
        # A topic that may not even be described is never fetched: the client has no leader to ask.
        for name in wanted:
            error = consumer.list_topics(name, timeout=TIMEOUT_SECONDS).topics[name].error
            if error is not None:
                outcomes[name] = str(error.name())
        consumer.assign([ConfluentPartition(name, 0, OFFSET_BEGINNING) for name in wanted - set(outcomes)])
        while set(outcomes) != wanted:
            message = consumer.poll(TIMEOUT_SECONDS)
            assert message is not None, f"neither a record nor an error of {wanted - set(outcomes)}"
            failure, topic = message.error(), message.topic()
            assert topic is not None
            outcomes[topic] = str(failure.name()) if failure else "read"
    return outcomes


@contextmanager
def consumer_of(connection: KafkaConnection, *, group: str) -> Iterator[Consumer]:
    consumer = Consumer({**connection.confluent(), "group.id": group, "enable.auto.commit": False})
    try:
        yield consumer
    finally:
        consumer.close()


@pytest.mark.parametrize("service", SERVICES)
def test_only_writers_write_and_only_readers_read(installed: KafkaConnection, service: str) -> None:
    names = {wire_name(installed.topic_prefix, topic.name): topic for topic in TOPICS}
    assert set(outcomes_of_writing(installed, names).values()) == {"written"}
    written = outcomes_of_writing(as_user(installed, service), names)
    assert written == {
        name: "written" if service in topic.writers else "TOPIC_AUTHORIZATION_FAILED" for name, topic in names.items()
    }
    read = outcomes_of_reading(as_user(installed, service), names)
    assert read == {
        name: "read" if service in topic.readers | {topic.owner} else "TOPIC_AUTHORIZATION_FAILED"
        for name, topic in names.items()
    }


async def commit(connection: KafkaConnection, group: str, partition: TopicPartition) -> None:
    consumer = AIOKafkaConsumer(**connection.aiokafka(), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([partition])
        await consumer.commit({partition: 0})
    finally:
        await consumer.stop()


async def test_a_service_commits_in_its_own_groups_only(installed: KafkaConnection) -> None:
    connection = as_user(installed, "finance")
    partition = TopicPartition(wire_name(installed.topic_prefix, MEMBERSHIPS), 0)
    await commit(connection, f"{group_prefix(installed.topic_prefix, 'finance')}payments", partition)
    for other in (f"{group_prefix(installed.topic_prefix, 'touring')}payments", f"{installed.topic_prefix}finance"):
        with pytest.raises(GroupAuthorizationFailedError):
            await commit(connection, other, partition)


async def test_an_owner_sends_the_largest_value_idempotently_and_none_above(installed: KafkaConnection) -> None:
    name = wire_name(installed.topic_prefix, MEMBERSHIPS)
    producer = AIOKafkaProducer(
        **as_user(installed, "auth").aiokafka(), enable_idempotence=True, acks="all", max_request_size=1_000_000
    )
    await producer.start()
    try:
        await producer.send_and_wait(name, value=b"x" * VALUE_SIZE_MAX_BYTES, key=b"k" * 200)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(name, value=b"x" * BATCH_SIZE_MAX_BYTES, key=b"k")
    finally:
        await producer.stop()


def _attempts(connection: KafkaConnection) -> dict[str, Callable[[AdminClient], Mapping[Any, Any]]]:
    own = wire_name(connection.topic_prefix, MEMBERSHIPS)
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    right = AclBinding(
        ResourceType.TOPIC,
        own,
        ResourcePatternType.LITERAL,
        "User:auth",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )
    credential = UserScramCredentialUpsertion("admin", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"x")
    return {
        "create a topic": lambda client: client.create_topics([NewTopic(f"{connection.topic_prefix}auth.own.v1", 1)]),
        "delete its topic": lambda client: client.delete_topics([own]),
        "add partitions": lambda client: client.create_partitions([NewPartitions(own, 24)]),
        "change its topic": lambda client: client.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, own, incremental_configs=[entry])]
        ),
        "delete records": lambda client: client.delete_records([ConfluentPartition(own, 0, 1)]),
        "give itself rights": lambda client: client.create_acls([right]),
        "change a password": lambda client: client.alter_user_scram_credentials([credential]),
    }


@pytest.mark.parametrize("attempt", _attempts(KafkaConnection("", "", "")))
def test_an_owner_administers_nothing(installed: KafkaConnection, attempt: str) -> None:
    client = administration(as_user(installed, "auth"))
    names, rights = set(topic_names(installed)), acls_of(installed)
    (answer,) = _attempts(installed)[attempt](client).values()
    with pytest.raises(KafkaException) as refused:
        answer.result(TIMEOUT_SECONDS)
    assert refused.value.args[0].code() in {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
    assert (set(topic_names(installed)), acls_of(installed)) == (names, rights)


async def signs_in(connection: KafkaConnection) -> bool:
    client = AIOKafkaClient(**connection.aiokafka())
    try:
        await client.bootstrap()
    except KafkaConnectionError:
        return False
    finally:
        await client.close()
    return True


async def test_a_wrong_password_is_refused(installed: KafkaConnection) -> None:
    assert await signs_in(as_user(installed, "finance"))
    assert not await signs_in(as_user(installed, "finance", "wrong"))
    assert not await signs_in(as_user(installed, "nobody"))


def test_the_administrators_wrong_password_is_told(admin: KafkaConnection) -> None:
    with pytest.raises(KafkaSilentError, match=f"refuses the password of {admin.username}"):
        bootstrap(replace(admin, password="wrong"), TOPICS, {})


async def test_a_changed_password_takes_the_place_of_the_old(admin: KafkaConnection) -> None:
    await asyncio.to_thread(bootstrap, admin, SOME_TOPICS, PRINCIPALS)
    try:
        report = await asyncio.to_thread(bootstrap, admin, SOME_TOPICS, {**PRINCIPALS, "ai": "rotated"})
        assert report == Report(passwords_changed=("ai",))
        assert await signs_in(as_user(admin, "ai", "rotated"))
        assert not await signs_in(as_user(admin, "ai"))
    finally:
        restored = await asyncio.to_thread(bootstrap, admin, SOME_TOPICS, PRINCIPALS)
    assert restored == Report(passwords_changed=("ai",))
    assert await signs_in(as_user(admin, "ai"))


def _acl(
    kind: ResourceType,
    name: str,
    operation: AclOperation,
    *,
    user: str = "finance",
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
    permission: AclPermissionType = AclPermissionType.ALLOW,
) -> AclBinding:
    return AclBinding(kind, name, pattern, f"User:{user}", "*", operation, permission)


def test_rights_the_registry_does_not_give_are_removed(admin: KafkaConnection, kafka_admin: KafkaConnection) -> None:
    bootstrap(admin, SOME_TOPICS, PRINCIPALS)
    before = acls(kafka_admin)
    memberships = wire_name(admin.topic_prefix, MEMBERSHIPS)
    stale = {
        _acl(ResourceType.TOPIC, memberships, AclOperation.WRITE),
        _acl(ResourceType.TOPIC, "*", AclOperation.READ),
        _acl(ResourceType.TOPIC, admin.topic_prefix, AclOperation.ALTER, pattern=ResourcePatternType.PREFIXED),
        _acl(ResourceType.GROUP, group_prefix(admin.topic_prefix, "auth"), AclOperation.DELETE),
        _acl(ResourceType.BROKER, "kafka-cluster", AclOperation.ALTER),
    }
    others = {
        # Another installation's, an operator's own user, and an operator's brake.
        _acl(ResourceType.TOPIC, f"other-{memberships}", AclOperation.WRITE),
        _acl(ResourceType.TOPIC, memberships, AclOperation.READ, user="operator"),
        _acl(ResourceType.TOPIC, memberships, AclOperation.WRITE, permission=AclPermissionType.DENY),
    }
    client = administration(kafka_admin)
    try:
        for answer in client.create_acls([*stale, *others]).values():
            answer.result(TIMEOUT_SECONDS)
        report = bootstrap(admin, SOME_TOPICS, PRINCIPALS)
        assert len(report.rights_removed) == len(stale)
        assert f"finance may write topic {memberships}" in report.rights_removed
        assert report == Report(rights_removed=report.rights_removed)
        assert acls(kafka_admin) == before | others
    finally:
        filters = [
            AclBindingFilter(
                acl.restype,
                acl.name,
                acl.resource_pattern_type,
                acl.principal,
                acl.host,
                acl.operation,
                acl.permission_type,
            )
            for acl in stale | others
        ]
        for removal in client.delete_acls(filters).values():
            removal.result(TIMEOUT_SECONDS)


def test_a_service_that_is_not_named_gets_nothing(admin: KafkaConnection) -> None:
    bootstrap(admin, TOPICS, {"finance": PASSWORD})
    assert {acl.principal for acl in acls_of(admin)} == {"User:finance"}


def test_a_password_is_not_shown() -> None:
    shown = KafkaConnection(bootstrap_servers="kafka:9092", username="finance", password="canary")
    assert "canary" not in repr(shown)


def test_a_verified_certificate_is_asked_for_over_tls() -> None:
    plain = KafkaConnection(bootstrap_servers="kafka:9092", username="finance", password="x")
    tls = replace(plain, security_protocol="SASL_SSL")
    assert plain.aiokafka()["ssl_context"] is None
    assert tls.aiokafka()["ssl_context"].check_hostname
    assert tls.confluent()["security.protocol"] == "SASL_SSL"
