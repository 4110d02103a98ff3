"""An access path that is filled by hand, for tests of decisions: no socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from access.cache import Change, Head
from access.freshness import OWNERS, SECOND, Bounds, OwnerFreshness
from access.ingest import Ingest
from access.path import AccessPath
from access.records import microseconds
from contracts.envelope import encode, envelop
from contracts.events.auth import GrantChanged
from contracts.events.entitlements import EntitlementChanged
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from contracts.payload import Payload
from contracts.services import MODULES
from contracts.topics import TOPICS
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from tests.harness.access import ROOT_KEY, standing_clocks
from tests.harness.clock import FakeClock

_TOPIC_OF = {payload.event_type: topic for topic in TOPICS for payload in topic.payloads}
_NOWHERE = KafkaConnection(bootstrap_servers="127.0.0.1:1", username="nobody", password="none")
_INGEST = Ingest(modules=MODULES, root_key=ROOT_KEY.public_key())


@dataclass
class LocalAccess:
    """A complete and fresh cache of every module, its clock, and one company with one person."""

    path: AccessPath
    clock: FakeClock
    company_id: CompanyId = field(default_factory=lambda: CompanyId(new_id()))
    user_id: UserId = field(default_factory=lambda: UserId(new_id()))
    _versions: dict[tuple[str, str], int] = field(default_factory=dict)

    def hold(
        self, data: Payload, *, company_id: UUID | None = None, version: int | None = None, epoch: int = 1
    ) -> None:
        """Apply a state as the feed would."""
        of_company = isinstance(data, GrantChanged | EntitlementChanged)
        company = CompanyId(company_id or self.company_id) if of_company else PLATFORM_COMPANY_ID
        topic = _TOPIC_OF[data.event_type]
        subject = (topic.name, data.aggregate_id(company))
        self._versions[subject] = version or self._versions.get(subject, 0) + 1
        envelope = envelop(
            data,
            occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
            company_id=company,
            actor_user_id=None,
            epoch=epoch,
            version=self._versions[subject],
            correlation_id=new_id(),
        )
        self.apply(_INGEST.change_of(topic.name, 0, topic.record_key(envelope), encode(envelope)))

    def apply(self, *changes: Change) -> None:
        self.path.cache.apply(self.path.cache.head().active, changes, {})

    def freshen(self, *, complete: bool = True, ahead_seconds: int = 0) -> None:
        """As after a heartbeat of both owners that just came, whose clocks are ahead of this one's."""
        wall, boot = self.path._clocks.wall_us(), self.path._clocks.boot_us()

        def revise(head: Head) -> Head:
            owner = OwnerFreshness(
                as_of=microseconds(self.clock()) + ahead_seconds * SECOND, lag=0, received_wall=wall, received_boot=boot
            )
            return replace(head, complete=complete, owners=tuple(owner for _ in OWNERS))

        self.path.cache.apply(self.path.cache.head().active, (), {}, revise)


@contextmanager
def local_access(folder: Path, *, bounds: Bounds | None = None) -> Iterator[LocalAccess]:
    """A cache in a folder of its own."""
    clock = FakeClock()
    path = AccessPath.open(
        folder,
        service="test",
        modules=MODULES,
        kafka=KafkaClients(_NOWHERE),
        root_key=ROOT_KEY.public_key(),
        clocks=standing_clocks(clock),
        bounds=bounds,
    )
    try:
        local = LocalAccess(path=path, clock=clock)
        local.freshen()
        yield local
    finally:
        path.close()
