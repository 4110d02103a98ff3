"""What a relay is made of, and what it tells of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from contracts.topics import Topic
from infra.clock import Clock
from infra.kafka.clients import Kafka
from infra.outbox.source import StateSource
from infra.outbox.store import Backlog, OpenStore
from infra.postgres.database import UnitsOfWork


@dataclass(frozen=True)
class Parts:
    """What a relay was given."""

    open_store: OpenStore
    database: UnitsOfWork
    kafka: Kafka
    states: tuple[Topic, ...]
    facts: tuple[Topic, ...]
    heartbeats: Topic | None
    sources: Mapping[str, StateSource]
    clock: Clock

    @property
    def topics(self) -> tuple[Topic, ...]:
        """What is written through the outbox."""
        return (*self.states, *self.facts)


@dataclass
class Status:
    """The state of a relay, for readiness, metrics and operators.

    :ivar leads: whether this relay holds the lock.
    :ivar backlog: what is pending, as the leader last saw it, once a second.
    :ivar refusal: why nothing at all is published: the database was restored. `kisum restore finish` ends it.
    :ivar doubt: why no heartbeat is sent though states are published: the log holds what the database has not come to,
        or was not checked yet.
    :ivar restoring: whether a restored database is being published anew; heartbeats say that its epoch is not complete.
    :ivar lost_topics: state topics whose log is another or shorter than what was acknowledged. While there is one it
        is published anew and no heartbeat is sent.
    :ivar lost_facts: topics of facts to which the same has happened since this relay began. What they held is gone.
    :ivar as_of: the newest database time that is known to hold; none while this relay does not lead.
    """

    leads: bool = False
    backlog: Backlog = field(default_factory=Backlog)
    refusal: str | None = None
    doubt: str | None = None
    restoring: bool = False
    lost_topics: frozenset[str] = frozenset()
    lost_facts: frozenset[str] = frozenset()
    as_of: datetime | None = None
