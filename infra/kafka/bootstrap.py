"""Brings a Kafka cluster to what the topic registry says: topics, users, rights. Nothing else creates any of them.

Everything is compared first. Where an existing topic differs nothing at all is changed, since a service that went on
would write keys into other partitions or lose state it must keep. A second run changes nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not mark what it exports
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from contracts.services import SERVICES
from contracts.topics import Topic, faults_of, group_prefix, wire_name
from infra.kafka.connection import KafkaConnection

_log: Final = logging.getLogger(__name__)

_REQUEST_TIMEOUT_SECONDS: Final = 20.0
_SETTLE_TIMEOUT_SECONDS: Final = 20.0
_POLL_INTERVAL_SECONDS: Final = 0.02
#: Kafka's minimum for SCRAM; passwords are generated with more entropy than iterations could add.
_SCRAM_ITERATIONS: Final = 4096
#: With fewer replicas than this in sync a write is refused, where there are as many replicas.
_IN_SYNC_REPLICAS_MIN: Final = 2


class BootstrapError(Exception):
    """Kafka could not be brought to what the registry says."""


class RegistryFaultyError(BootstrapError):
    """The registry contradicts itself, or a principal is no service. Nothing was changed."""


class KafkaSilentError(BootstrapError):
    """Kafka did not answer, refused the administrator, or did not reach the asked state in time."""


@dataclass(frozen=True)
class Mismatch:
    """One thing an existing topic has otherwise."""

    topic: str
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.topic}: {self.field} is {self.found}, the registry says {self.expected}"


class TopicMismatchError(BootstrapError):
    """Existing topics are not what the registry says. Nothing was changed."""

    def __init__(self, mismatches: Sequence[Mismatch]) -> None:
        """All that was found, not only the first."""
        super().__init__("\n".join(map(str, mismatches)))
        self.mismatches = tuple(mismatches)


@dataclass(frozen=True)
class Report:
    """What a run changed: names as they are on the broker, rights in words. Empty where all was as it should be."""

    topics_created: tuple[str, ...] = ()
    users_created: tuple[str, ...] = ()
    passwords_changed: tuple[str, ...] = ()
    rights_granted: tuple[str, ...] = ()
    rights_removed: tuple[str, ...] = ()


def bootstrap(
    admin: KafkaConnection, topics: Sequence[Topic], principals: Mapping[str, str], *, replication_factor: int = 1
) -> Report:
    """Create missing topics, users and rights, remove rights of these users that the registry does not give.

    `principals` are passwords by service name; a service that is not among them gets nothing. Topics and groups begin
    with the administrator's `topic_prefix`; those of other prefixes are left alone. Blocks up to a minute, returns when
    every change is in force. Raises TopicMismatchError, RegistryFaultyError, KafkaSilentError.
    """
    faults = faults_of(topics) + [f"the principal {name!r} is no service" for name in set(principals) - set(SERVICES)]
    if faults:
        raise RegistryFaultyError("\n".join(faults))
    try:
        # First, since any other call takes a refused password for a broker that is away.
        if not _signs_in(admin):
            raise KafkaSilentError(f"Kafka at {admin.bootstrap_servers} refuses the password of {admin.username}")
        cluster = _Cluster(admin, topics, replication_factor)
        cluster.assert_existing_topics()
        report = Report(topics_created=cluster.create_missing_topics())
        created, changed = cluster.ensure_users(principals)
        granted, removed = cluster.ensure_rights(principals)
    except KafkaException as error:
        raise KafkaSilentError(f"Kafka at {admin.bootstrap_servers}: {error.args[0].str()}") from error
    return replace(
        report, users_created=created, passwords_changed=changed, rights_granted=granted, rights_removed=removed
    )


class _Cluster:
    def __init__(self, connection: KafkaConnection, topics: Sequence[Topic], replication_factor: int) -> None:
        self._connection = connection
        self._prefix = connection.topic_prefix
        self._topics = {wire_name(self._prefix, topic.name): topic for topic in topics}
        self._replication_factor = replication_factor
        self._admin = AdminClient(connection.confluent(), logger=_log)

    def assert_existing_topics(self) -> None:
        """Raises TopicMismatchError where a topic that is there is not as declared."""
        found = self._admin.list_topics(timeout=_REQUEST_TIMEOUT_SECONDS).topics
        existing = [name for name in self._topics if name in found]
        if not existing:
            return
        described = self._admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in existing])
        mismatches = []
        for resource, answer in described.items():
            name = resource.name
            topic = self._topics[name]
            partitions = found[name].partitions
            if len(partitions) != topic.partitions:
                mismatches.append(Mismatch(name, "partitions", str(topic.partitions), str(len(partitions))))
            replicas = min(len(partition.replicas) for partition in partitions.values())
            if replicas < self._replication_factor:
                mismatches.append(Mismatch(name, "replicas", str(self._replication_factor), str(replicas)))
            settings = answer.result(_REQUEST_TIMEOUT_SECONDS)
            mismatches += [
                Mismatch(name, key, expected, settings[key].value)
                for key, expected in self._config_of(topic).items()
                if settings[key].value != expected
            ]
        if mismatches:
            raise TopicMismatchError(mismatches)

    def create_missing_topics(self) -> tuple[str, ...]:
        """The names that were created, after every broker asked knows them."""
        found = self._admin.list_topics(timeout=_REQUEST_TIMEOUT_SECONDS).topics
        missing = [name for name in self._topics if name not in found]
        if not missing:
            return ()
        answers = self._admin.create_topics(
            [
                NewTopic(
                    name,
                    num_partitions=self._topics[name].partitions,
                    replication_factor=self._replication_factor,
                    config=self._config_of(self._topics[name]),
                )
                for name in missing
            ],
            request_timeout=_REQUEST_TIMEOUT_SECONDS,
        )
        created = tuple(name for name, answer in answers.items() if _was_created(answer))
        _settle("topics have leaders", self._topics_have_leaders)
        # Another bootstrap, of another version perhaps, may have created some in between.
        self.assert_existing_topics()
        return created

    def ensure_users(self, principals: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Users created, and users whose password was another: Kafka tells none, so each is tried by signing in."""
        if not principals:
            return (), ()
        described = cast("Future[dict[str, Any]]", self._admin.describe_user_scram_credentials())
        known = described.result(_REQUEST_TIMEOUT_SECONDS)
        created = {name for name in principals if not _has_scram_sha_512(known.get(name))}
        changed = self._refused({name: principals[name] for name in set(principals) - created})
        wanted = {name: principals[name] for name in created | changed}
        if wanted:
            answers = self._admin.alter_user_scram_credentials(
                [
                    UserScramCredentialUpsertion(
                        name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _SCRAM_ITERATIONS), password.encode()
                    )
                    for name, password in wanted.items()
                ]
            )
            for answer in answers.values():
                answer.result(_REQUEST_TIMEOUT_SECONDS)
            _settle("passwords are accepted", lambda: not self._refused(wanted))
        return tuple(sorted(created)), tuple(sorted(changed))

    def ensure_rights(self, principals: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Rights granted and rights removed."""
        wanted = {right for name in principals for right in self._rights_of(name)}
        found = self._acls()
        stale = {acl for acl in found - wanted if self._is_ours(acl, principals)}
        missing = wanted - found
        if missing:
            for answer in self._admin.create_acls(list(missing)).values():
                answer.result(_REQUEST_TIMEOUT_SECONDS)
        if stale:
            for removal in self._admin.delete_acls([_exactly(acl) for acl in stale]).values():
                removal.result(_REQUEST_TIMEOUT_SECONDS)
        if missing or stale:
            _settle("rights are in force", lambda: self._are_in_force(wanted, stale))
        return tuple(sorted(map(_in_words, missing))), tuple(sorted(map(_in_words, stale)))

    def _config_of(self, topic: Topic) -> dict[str, str]:
        return {
            **topic.config,
            "min.insync.replicas": str(min(_IN_SYNC_REPLICAS_MIN, self._replication_factor)),
        }

    def _topics_have_leaders(self) -> bool:
        found = self._admin.list_topics(timeout=_REQUEST_TIMEOUT_SECONDS).topics
        return all(
            name in found
            and len(found[name].partitions) > 0
            and all(partition.leader >= 0 for partition in found[name].partitions.values())
            for name in self._topics
        )

    def _refused(self, passwords: Mapping[str, str]) -> set[str]:
        """The users Kafka does not accept with these passwords."""
        if not passwords:
            return set()
        with ThreadPoolExecutor(len(passwords), thread_name_prefix="kafka-sign-in") as threads:
            accepted = threads.map(
                lambda name: _signs_in(replace(self._connection, username=name, password=passwords[name])), passwords
            )
            return {name for name, signed_in in zip(passwords, accepted, strict=True) if not signed_in}

    def _rights_of(self, service: str) -> Iterable[AclBinding]:
        for name, topic in self._topics.items():
            writes, reads = service in topic.writers, service == topic.owner or service in topic.readers
            # An owner reads its own topics: it tails them to see that the log ends right (design §4).
            if reads:
                yield _allow(service, ResourceType.TOPIC, name, AclOperation.READ)
            if writes:
                yield _allow(service, ResourceType.TOPIC, name, AclOperation.WRITE)
            if reads or writes:
                yield _allow(service, ResourceType.TOPIC, name, AclOperation.DESCRIBE)
        yield _allow(
            service,
            ResourceType.GROUP,
            group_prefix(self._prefix, service),
            AclOperation.READ,
            ResourcePatternType.PREFIXED,
        )

    def _acls(self) -> set[AclBinding]:
        every = AclBindingFilter(
            ResourceType.ANY,
            None,  # type: ignore[arg-type]  # any name; the annotations leave it out
            ResourcePatternType.ANY,
            None,  # type: ignore[arg-type]  # any principal
            None,  # type: ignore[arg-type]  # any host
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        return set(self._admin.describe_acls(every).result(_REQUEST_TIMEOUT_SECONDS))

    def _is_ours(self, acl: AclBinding, principals: Iterable[str]) -> bool:
        """Whether it lets one of these users at what this registry rules. One that denies is an operator's brake."""
        if acl.permission_type != AclPermissionType.ALLOW or acl.principal not in {f"User:{p}" for p in principals}:
            return False
        if acl.restype == ResourceType.TOPIC:
            return any(_covers(acl, name) for name in self._topics)
        if acl.restype == ResourceType.GROUP:
            return any(_covers(acl, group_prefix(self._prefix, service)) for service in SERVICES)
        # No service has rights over the cluster, transactions or delegation tokens.
        return True

    def _are_in_force(self, wanted: set[AclBinding], stale: set[AclBinding]) -> bool:
        found = self._acls()
        return wanted <= found and not stale & found


def _was_created(answer: "Future[None]") -> bool:
    try:
        answer.result(_REQUEST_TIMEOUT_SECONDS)
    except KafkaException as refused:
        if refused.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise
    return True


def _has_scram_sha_512(described: Any) -> bool:
    return described is not None and any(
        credential.mechanism == ScramMechanism.SCRAM_SHA_512 for credential in described.scram_credential_infos
    )


def _signs_in(connection: KafkaConnection) -> bool:
    """Whether Kafka accepts the password. Raises KafkaException where it does not answer."""
    refusals: list[KafkaError] = []

    def note(error: KafkaError) -> None:
        if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - the library's public name for it
            refusals.append(error)

    client = Producer({**connection.confluent(), "error_cb": note}, logger=_log)
    deadline = time.monotonic() + _REQUEST_TIMEOUT_SECONDS
    while True:
        try:
            client.list_topics(timeout=0.5)
        except KafkaException:
            # Errors reach the callback only here.
            client.poll(0)
            if refusals:
                return False
            if time.monotonic() > deadline:
                raise
        else:
            return True


def _settle(what: str, holds: Callable[[], bool]) -> None:
    """Wait until brokers have taken over what the controller accepted."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT_SECONDS
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            raise KafkaSilentError(f"Kafka did not come so far that {what} within {_SETTLE_TIMEOUT_SECONDS:.0f} s")
        pause.wait(_POLL_INTERVAL_SECONDS)


def _allow(
    service: str,
    kind: ResourceType,
    name: str,
    operation: AclOperation,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:
    return AclBinding(kind, name, pattern, f"User:{service}", "*", operation, AclPermissionType.ALLOW)


def _exactly(acl: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        acl.restype,
        acl.name,
        acl.resource_pattern_type,
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission_type,
    )


def _covers(acl: AclBinding, name: str) -> bool:
    if acl.resource_pattern_type == ResourcePatternType.PREFIXED:
        return bool(name.startswith(acl.name))
    return acl.name in {"*", name}


def _in_words(acl: AclBinding) -> str:
    pattern = "…" if acl.resource_pattern_type == ResourcePatternType.PREFIXED else ""
    who = acl.principal.removeprefix("User:")
    operation, kind = AclOperation(acl.operation).name.lower(), ResourceType(acl.restype).name.lower()
    return f"{who} may {operation} {kind} {acl.name}{pattern}"
