"""From a Kafka record to a change of the cache. Whatever bytes come, the answer is a change and never an exception."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from access import records
from access.cache import BlockPartition, Change, Partition, Quarantine, UnblockPartition, Upsert
from access.memberships import membership_of
from access.records import AmbiguousEventError
from contracts.envelope import Envelope, UndecodableEventError, WithheldStateError, decode
from contracts.events.auth import GrantChanged, PermissionsChanged, SessionsChanged, SigningKeyChanged
from contracts.events.entitlements import EntitlementChanged
from contracts.events.heartbeat import Heartbeat
from contracts.payload import EPOCH_MAX, OPAQUE_ID_PATTERN, SLUG_PATTERN, VERSION_MAX, Payload
from contracts.topics import TOPICS, Topic
from infra.kafka import partitioner

COMPANIES: Final = "entitlements.companies.v1"
MEMBERSHIPS: Final = "auth.memberships.v1"
PERMISSIONS: Final = "auth.permissions.v1"
SIGNING_KEYS: Final = "auth.signing-keys.v1"
SESSIONS: Final = "auth.sessions.v1"

_TOPICS: Final[Mapping[str, Topic]] = {topic.name: topic for topic in TOPICS}
#: The topics that decide, and those that prove how fresh they are, by owner.
STATE_TOPICS: Final[Mapping[str, Topic]] = {
    name: _TOPICS[name] for name in (COMPANIES, MEMBERSHIPS, PERMISSIONS, SIGNING_KEYS, SESSIONS)
}
HEARTBEAT_TOPICS: Final[Mapping[str, Topic]] = {
    owner: _TOPICS[f"{owner}.heartbeats.v1"] for owner in ("entitlements", "auth")
}
#: The version of a heartbeat is a time in microseconds: some day in 2255.
HEARTBEAT_VERSION_MAX: Final = 2**53
_KID: Final = re.compile(OPAQUE_ID_PATTERN)
_ID: Final = re.compile(records.UUID_PATTERN)
_SLUG: Final = re.compile(SLUG_PATTERN)


def partitions_of(owner: str) -> list[Partition]:
    """The access partitions of an owner."""
    return [
        (topic.name, number)
        for topic in STATE_TOPICS.values()
        if topic.owner == owner
        for number in range(topic.partitions)
    ]


def partition_of(topic: str, record_key: bytes) -> Partition:
    """Where the record of a key lies: murmur2, as every producer is told to."""
    return topic, partitioner.partition_of(record_key, STATE_TOPICS[topic].partitions)


def _company(text: str) -> bytes:
    return records.entitlement_key(_uuid(text))


def _membership(text: str) -> bytes:
    company, _, user = text.partition("/")
    return records.membership_key(_uuid(company), _uuid(user))


def _module(text: str) -> bytes:
    # A module this reader does not know is no reason to stop: a newer version of Auth may tell of it.
    if not _SLUG.fullmatch(text):
        raise ValueError("no module key")
    return records.permissions_key(text)


def _kid(text: str) -> bytes:
    if not _KID.fullmatch(text):
        raise ValueError("no key id")
    return records.signing_key_key(text)


def _person(text: str) -> bytes:
    return records.sessions_key(_uuid(text))


def _uuid(text: str) -> UUID:
    if not _ID.fullmatch(text):
        raise ValueError("not the one form of a UUID")
    return UUID(int=int(text.replace("-", ""), 16))


_SUBJECTS: Final[Mapping[str, Callable[[str], bytes]]] = {
    COMPANIES: _company,
    MEMBERSHIPS: _membership,
    PERMISSIONS: _module,
    SIGNING_KEYS: _kid,
    SESSIONS: _person,
}


#: The topic of a cache key, by its first byte.
TOPIC_OF_PREFIX: Final[Mapping[bytes, str]] = {
    b"e": COMPANIES,
    b"m": MEMBERSHIPS,
    b"p": PERMISSIONS,
    b"k": SIGNING_KEYS,
    b"s": SESSIONS,
}


def subject_key(topic: str, record_key: bytes) -> bytes | None:
    """The cache key of a record's subject, or None where the record's key names none."""
    try:
        return _SUBJECTS[topic](record_key.decode("ascii"))
    except ValueError:
        return None


@dataclass(frozen=True)
class HeartbeatRecord:
    """A heartbeat, and the pair that orders it."""

    heartbeat: Heartbeat
    epoch: int
    version: int


class Ingest:
    """Decodes the records of the access topics for one cache.

    :param modules: whose grants are kept.
    :param root_key: what signing keys are signed with.
    """

    def __init__(self, *, modules: Collection[str], root_key: Ed25519PublicKey) -> None:
        self._modules = frozenset(modules)
        self._root_key = root_key

    def change_of(self, topic: str, partition: int, record_key: bytes | None, value: bytes | None) -> Change:
        """What a record of a state topic changes.

        One that cannot be read is of no subject where its key does not belong into this partition either. What would
        end that subject's quarantine comes in the key's own partition, and whoever reads the log again may read it
        before this one.
        """
        raw_key, found_in = record_key or b"", (topic, partition)
        if topic == MEMBERSHIPS and value is not None:
            membership = membership_of(raw_key, value, self._modules)
            if membership is not None:
                return membership
        key = subject_key(topic, raw_key)
        change = None if key is None else self._change_of_subject(topic, key, raw_key, value)
        if change is None or (isinstance(change, Quarantine) and partition_of(topic, raw_key) != found_in):
            # Null under exactly these bytes is the owner's withdrawal, the only tombstone that is accepted.
            return UnblockPartition(found_in, raw_key) if value is None else BlockPartition(found_in, raw_key)
        return change

    def _change_of_subject(self, topic: str, key: bytes, raw_key: bytes, value: bytes | None) -> Upsert | Quarantine:
        if value is None:
            return Quarantine(key, "a tombstone")
        try:
            envelope: Envelope[Payload] = decode(value, STATE_TOPICS[topic].payloads)
            if STATE_TOPICS[topic].record_key(envelope) != raw_key:
                return Quarantine(key, "the record's key is not that of its event")
            if envelope.epoch > EPOCH_MAX or envelope.version > VERSION_MAX:
                return Quarantine(key, "an epoch or a version that nobody can have counted up to")
            return Upsert(key, envelope.epoch, envelope.version, self._compile(envelope), envelope.event_id)
        except WithheldStateError as withheld:
            return Quarantine(key, "the log refused its state", stands_for=(withheld.epoch, withheld.version))
        except (UndecodableEventError, AmbiguousEventError) as refused:
            return Quarantine(key, f"{type(refused).__name__}: {refused}")

    def _compile(self, envelope: Envelope[Any]) -> bytes:
        epoch, version = envelope.epoch, envelope.version
        match envelope.data:
            case GrantChanged() as data:
                return records.compile_membership(data, epoch, version, self._modules)
            case EntitlementChanged() as data:
                return records.compile_entitlement(data, epoch, version)
            case PermissionsChanged() as data:
                return records.compile_permissions(data, epoch, version)
            case SessionsChanged() as data:
                return records.compile_sessions(data, epoch, version)
            case SigningKeyChanged() as data:
                self._verify(data)
                return records.compile_signing_key(data, epoch, version)
            case _:
                raise AmbiguousEventError(f"{envelope.type} is not an access event")

    def _verify(self, key: SigningKeyChanged) -> None:
        try:
            self._root_key.verify(records.raw_base64url(key.signature), key.signed_bytes())
        except InvalidSignature:
            raise AmbiguousEventError("the root key did not sign it") from None


def heartbeat_of(owner: str, value: bytes | None) -> HeartbeatRecord | None:
    """An owner's heartbeat, or None where the record is not one: it then proves nothing."""
    if value is None:
        return None
    try:
        envelope: Envelope[Any] = decode(value, HEARTBEAT_TOPICS[owner].payloads)
    except UndecodableEventError:
        return None
    if envelope.epoch > EPOCH_MAX or envelope.version > HEARTBEAT_VERSION_MAX:
        return None
    return HeartbeatRecord(envelope.data, envelope.epoch, envelope.version)
