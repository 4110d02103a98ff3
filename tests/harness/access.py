"""The neighbours of a service that decides: Core and Auth played with events of the contracts, on a real Kafka."""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaProducer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.acknowledgements import TOPIC as ACKNOWLEDGEMENTS
from access.freshness import Clocks
from access.ingest import HEARTBEAT_TOPICS, STATE_TOPICS
from contracts.envelope import encode, envelop, headers
from contracts.events.auth import (
    AuthHeartbeatSent,
    Delegation,
    GrantChanged,
    MembershipStatus,
    ModuleGrant,
    PermissionsChanged,
    PermissionState,
    PermissionStatus,
    SigningKeyChanged,
    SigningKeyStatus,
)
from contracts.events.entitlements import (
    BaseEntitlement,
    EntitlementChanged,
    EntitlementsHeartbeatSent,
    EntitlementStatus,
    ModuleEntitlement,
)
from contracts.events.heartbeat import Position
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from contracts.payload import Payload
from contracts.permissions import PERMISSIONS
from contracts.topics import TOPICS, wire_name
from infra.kafka.bootstrap import bootstrap
from infra.kafka.connection import KafkaConnection
from tests.harness.clock import FakeClock
from tests.harness.runtime import Runtime

#: A test's root key; its public half is a service's setting.
ROOT_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"root key of a test, 32 bytes ...")
_TOPIC_OF: Final = {payload.event_type: topic for topic in TOPICS for payload in topic.payloads}
_HEARTBEATS: Final = {"auth": AuthHeartbeatSent, "entitlements": EntitlementsHeartbeatSent}


def standing_clocks(clock: FakeClock) -> Clocks:
    """Clocks that move together when the test moves one."""
    return Clocks(
        wall_us=lambda: int(clock().timestamp() * 1_000_000),
        boot_us=lambda: int(clock().timestamp() * 1_000_000) - 1_000_000_000,
        boot_id="a boot",
    )


def grant(
    user_id: UUID,
    *,
    permissions: Iterable[str] | Mapping[str, datetime | None] = ("finance.expenses.read",),
    module: str = "finance",
    scopes: Mapping[str, Any] | None = None,
    status: MembershipStatus = MembershipStatus.ACTIVE,
    superadmin: bool = False,
    delegations: tuple[Delegation, ...] = (),
) -> GrantChanged:
    """A membership with one module, unrestricted unless scopes are given."""
    held = dict(permissions) if isinstance(permissions, Mapping) else dict.fromkeys(permissions)
    given: dict[str, Any] = {"business_unit": "*", "event": "*"} if scopes is None else dict(scopes)
    return GrantChanged(
        user_id=UserId(user_id),
        status=status,
        superadmin=superadmin,
        modules=(ModuleGrant(key=module, permissions=held, scopes=given),),
        delegations=delegations,
    )


def entitled(
    *modules: str,
    base: str | None = "promoter",
    status: EntitlementStatus = EntitlementStatus.ACTIVE,
    valid_until: datetime | None = None,
    capabilities: Iterable[str] = (),
) -> EntitlementChanged:
    """A company with a base, which is among its modules, and add-on modules."""
    keys = (*([] if base is None else [base]), *modules)
    return EntitlementChanged(
        status=status,
        base=None if base is None else BaseEntitlement(module=base, status=status, valid_until=valid_until),
        modules=tuple(ModuleEntitlement(key=key, valid_until=valid_until) for key in keys),
        capabilities=tuple(capabilities),
    )


def catalog(module: str = "finance", **changed: PermissionStatus) -> PermissionsChanged:
    """The rows of a module as the contracts declare them, with other statuses for keys written with two underscores."""
    return PermissionsChanged(
        module=module,
        permissions=tuple(
            PermissionState(
                key=row.key,
                status=changed.get(row.key.replace(".", "__"), PermissionStatus(row.status.value)),
                alias_of=row.alias_of,
            )
            for row in PERMISSIONS[module].values()
        ),
    )


def signing_key(
    kid: str,
    private_key: Ed25519PrivateKey,
    *,
    root: Ed25519PrivateKey = ROOT_KEY,
    status: SigningKeyStatus = SigningKeyStatus.ACTIVE,
    not_before: datetime = datetime(2020, 1, 1, tzinfo=UTC),
    not_after: datetime = datetime(2099, 1, 1, tzinfo=UTC),
) -> SigningKeyChanged:
    """A signing key that the root key vouches for."""
    unsigned = SigningKeyChanged(
        kid=kid,
        algorithm="EdDSA",
        public_key=_base64url(private_key.public_key().public_bytes_raw()),
        not_before=not_before,
        not_after=not_after,
        status=status,
        signature="A" * 86,
    )
    return unsigned.model_copy(update={"signature": _base64url(root.sign(unsigned.signed_bytes()))})


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Sources:
    """Core and Auth as their topics show them. Heartbeats speak of what was published here before."""

    kafka: KafkaConnection
    producer: AIOKafkaProducer
    company_id: CompanyId = field(default_factory=lambda: CompanyId(new_id()))
    user_id: UserId = field(default_factory=lambda: UserId(new_id()))
    epoch: int = 1
    topic_id: str = "A" * 22
    _ends: dict[tuple[str, int], int] = field(default_factory=dict)
    _versions: dict[tuple[str, str], int] = field(default_factory=dict)
    _beats: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def publish(
        self,
        data: Payload,
        *,
        company_id: CompanyId | None = None,
        version: int | None = None,
        epoch: int | None = None,
    ) -> int:
        """Send a state and return its version, the next of its subject unless one is given."""
        of_company = isinstance(data, GrantChanged | EntitlementChanged)
        company = (company_id or self.company_id) if of_company else PLATFORM_COMPANY_ID
        topic = _TOPIC_OF[data.event_type]
        subject = (topic.name, data.aggregate_id(company))
        chosen = version or self._versions.get(subject, 0) + 1
        self._versions[subject] = max(chosen, self._versions.get(subject, 0))
        envelope = envelop(
            data,
            occurred_at=datetime.now(UTC),
            company_id=company,
            actor_user_id=None,
            epoch=epoch or self.epoch,
            version=chosen,
            correlation_id=new_id(),
        )
        await self.send_raw(topic.name, topic.record_key(envelope), encode(envelope), headers(envelope, None))
        return chosen

    async def send_raw(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        record_headers: list[tuple[str, bytes]] | None = None,
        *,
        partition: int | None = None,
    ) -> None:
        """Send a record as it is."""
        sent = await self.producer.send_and_wait(
            wire_name(self.kafka.topic_prefix, topic), value, key=key, headers=record_headers, partition=partition
        )
        self._ends[topic, sent.partition] = sent.offset + 1

    async def beat(
        self, *owners: str, as_of: datetime | None = None, complete: bool = True, ahead: int = 0, left_out: int = 0
    ) -> None:
        """Send a heartbeat of each owner, both by default, of now unless told. `ahead` is added to its offsets,
        `left_out` is how many partitions it says nothing of.
        """
        for owner in owners or tuple(_HEARTBEATS):
            positions = [
                Position(
                    topic=topic.name,
                    topic_id=self.topic_id,
                    partition=number,
                    next_offset=self._ends.get((topic.name, number), 0) + ahead,
                )
                for topic in STATE_TOPICS.values()
                if topic.owner == owner
                for number in range(topic.partitions)
            ]
            data = _HEARTBEATS[owner](
                as_of=as_of or datetime.now(UTC),
                publish_counter=1,
                epoch_complete=complete,
                positions=tuple(positions[: len(positions) - left_out]),
            )
            envelope = envelop(
                data,
                occurred_at=datetime.now(UTC),
                company_id=PLATFORM_COMPANY_ID,
                actor_user_id=None,
                epoch=self.epoch,
                version=next(self._beats),
                correlation_id=new_id(),
            )
            topic = HEARTBEAT_TOPICS[owner]
            await self.producer.send_and_wait(
                wire_name(self.kafka.topic_prefix, topic.name), encode(envelope), key=topic.record_key(envelope)
            )


@asynccontextmanager
async def access_sources(runtime: Runtime) -> AsyncIterator[Sources]:
    """Core and Auth on topics of their own."""
    kafka = runtime.administrator(f"{runtime.new_prefix()}.")
    topics = [*STATE_TOPICS.values(), *HEARTBEAT_TOPICS.values(), ACKNOWLEDGEMENTS]
    await asyncio.to_thread(bootstrap, kafka, topics, {})
    producer = AIOKafkaProducer(**kafka.aiokafka(), acks="all", enable_idempotence=True, linger_ms=0)
    await producer.start()
    try:
        yield Sources(kafka=kafka, producer=producer)
    finally:
        await producer.stop()
