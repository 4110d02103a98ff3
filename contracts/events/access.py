"""What each instance that decides says of itself once a second (design §5): what it has applied, and when."""

from typing import ClassVar
from uuid import UUID

from contracts.events.heartbeat import Position, TopicName
from contracts.identifiers import CompanyId
from contracts.payload import Count, Instant, OpaqueId, OpenStatus, Part, Payload, Slug, Version


class InstanceStatus(OpenStatus):
    """`stopped` signs the instance off: proofs no longer wait for it."""

    SERVING = "serving"
    NOT_READY = "not_ready"
    STOPPED = "stopped"


class AppliedRecord(Part):
    """An interactive record, and the instance's wall clock when its state began to decide."""

    topic: TopicName
    event_id: UUID
    epoch: Version
    version: Version
    applied_at: Instant


class RecordsApplied(Payload):
    """An acknowledgement."""

    event_type: ClassVar[str] = "access.records-applied.v1"

    instance: OpaqueId
    service: Slug
    status: InstanceStatus
    #: The active generation of the cache, and whether it is complete.
    generation: Count
    generation_complete: bool
    #: Per owner, the database time up to which the instance is fresh; an owner not heard of is absent.
    fresh_as_of: dict[Slug, Instant]
    #: Below these offsets all is applied.
    positions: tuple[Position, ...]
    #: Interactive records applied since the last acknowledgement.
    records: tuple[AppliedRecord, ...]

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """The instance."""
        return self.instance
