"""The heartbeat of an owner of access topics (design §4): what proves that a reader is not behind."""

from typing import Annotated

from pydantic import Field, StringConstraints

from contracts.identifiers import CompanyId
from contracts.payload import INTEGER_MAX, Count, Instant, Part, Payload

TopicName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,200}$")]
#: Kafka's id of a topic; another id under the same name is another topic.
TopicId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22}$")]


class Position(Part):
    """The next offset of one partition. `topic` is the registry's name, without a test run's prefix."""

    topic: TopicName
    topic_id: TopicId
    partition: Annotated[int, Field(ge=0, le=INTEGER_MAX)]
    next_offset: Count


class Heartbeat(Payload):
    """All that was written before `as_of`, on the interactive lane, lies below `positions`. Sent once a second.

    The envelope's epoch is the owner's.
    """

    #: Database time, read before the positions.
    as_of: Instant
    #: How many records the owner has published in this epoch.
    publish_counter: Count
    #: False while a restored owner is still publishing: records of older epochs are then unknown.
    epoch_complete: bool
    positions: tuple[Position, ...]

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """The owner."""
        return self.event_type.partition(".")[0]
