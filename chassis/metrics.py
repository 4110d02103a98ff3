"""What an operator can measure of a service: every metric there is, and what a service reads of itself when asked.

Nothing is measured before somebody asks, but for what is counted as it happens; that is plain numbers on the one thread
of the process. What makes a page of it for Prometheus is no part of a service: cli.metrics.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from aiokafka.errors import KafkaError

from access.path import AccessPath
from contracts.problems import Reason
from infra.kafka.work import WorkConsumers
from infra.outbox.relay import Relay

#: How long a scrape waits for Kafka to tell how far its logs are; Prometheus itself waits 10 s.
_LAG_TIMEOUT_SECONDS: Final = 2.0
#: The `reason` of a decision that was a yes.
ALLOWED: Final = "allowed"

_log: Final = structlog.get_logger("kisum.metrics")


@dataclass(frozen=True)
class Metric:
    """A metric in Prometheus' conventions. Each has the label `service` before its own.

    The values of a label are few and known beforehand: never a company, a person or a key.
    """

    name: str
    kind: Literal["counter", "gauge"]
    description: str
    labels: tuple[str, ...] = ()


REQUESTS: Final = Metric(
    "kisum_http_requests_total", "counter", "Requests that were answered, by the status of the answer.", ("status",)
)
DECISIONS: Final = Metric(
    "kisum_access_decisions_total",
    "counter",
    "Requests of a company that were decided: allowed, or the reason of the refusal.",
    ("reason",),
)
ACCESS_READY: Final = Metric(
    "kisum_access_ready", "gauge", "Whether the instance can decide: its cache is complete and fresh enough to read."
)
ACCESS_AGE: Final = Metric(
    "kisum_access_state_age_seconds", "gauge", "How old the access state of an owner is that is decided by.", ("owner",)
)
ACCESS_POSITION: Final = Metric(
    "kisum_access_applied_position",
    "gauge",
    "The next offset of an access partition that the cache has not applied.",
    ("topic", "partition"),
)
QUARANTINED_KEYS: Final = Metric(
    "kisum_access_quarantined_keys",
    "gauge",
    "Subjects whose newest state could not be read and that are answered 503, up to 10,000.",
    ("kind",),
)
QUARANTINED_PARTITIONS: Final = Metric(
    "kisum_access_quarantined_partitions",
    "gauge",
    "Access partitions with a record under an unreadable key; all their subjects are answered 503.",
)
OUTBOX_LEADER: Final = Metric(
    "kisum_outbox_leader", "gauge", "Whether this process is the one that publishes what the service has written."
)
OUTBOX_PENDING: Final = Metric(
    "kisum_outbox_pending_rows", "gauge", "Rows that are to be published, up to 100,000; told by the leader."
)
OUTBOX_AGE: Final = Metric(
    "kisum_outbox_oldest_pending_age_seconds",
    "gauge",
    "How long the oldest of these rows has been waiting; told by the leader.",
)
OUTBOX_SET_ASIDE: Final = Metric(
    "kisum_outbox_set_aside_rows", "gauge", "Rows that Kafka refuses for good; told by the leader."
)
OUTBOX_HELD_BACK: Final = Metric(
    "kisum_outbox_held_back",
    "gauge",
    "Whether readers are told nothing new, or no heartbeat: after a restore, or while the log is in doubt.",
)
OUTBOX_LOST_LOGS: Final = Metric(
    "kisum_outbox_lost_logs", "gauge", "Topics whose log is not the one that was written, as this leader found."
)
CONSUMER_RECORDS: Final = Metric(
    "kisum_consumer_records_total", "counter", "Deliveries of records, by what became of them.", ("consumer", "outcome")
)
CONSUMER_LAG: Final = Metric(
    "kisum_consumer_lag_records",
    "gauge",
    "Offsets between what a consumer is done with and the end of its partition.",
    ("consumer", "topic", "partition"),
)
CONSUMER_STOPPED: Final = Metric(
    "kisum_consumer_stopped",
    "gauge",
    "Whether a consumer has stopped because it parked too much; a new start of the process brings it back.",
    ("consumer",),
)

METRICS: Final = (
    REQUESTS,
    DECISIONS,
    ACCESS_READY,
    ACCESS_AGE,
    ACCESS_POSITION,
    QUARANTINED_KEYS,
    QUARANTINED_PARTITIONS,
    OUTBOX_LEADER,
    OUTBOX_PENDING,
    OUTBOX_AGE,
    OUTBOX_SET_ASIDE,
    OUTBOX_HELD_BACK,
    OUTBOX_LOST_LOGS,
    CONSUMER_RECORDS,
    CONSUMER_LAG,
    CONSUMER_STOPPED,
)


@dataclass(frozen=True)
class Reading:
    """One number of a service, with the values of its metric's labels."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


class RequestCounts:
    """Counts what became of requests, when they are over.

    It is on the way of every request, so it adds to plain numbers: one thread serves, and a lock would protect nothing.
    """

    def __init__(self) -> None:
        #: What alerts look at is there from the beginning: from nothing to one Prometheus sees no increase.
        self.by_status: dict[int | None, int] = {500: 0}
        self.decisions: dict[str, int] = dict.fromkeys((ALLOWED, *Reason), 0)

    def note(self, *, status: int | None, reason: str | None, is_admitted: bool) -> None:
        """Count one request.

        :param status: of the answer; None where it broke off before there was one.
        :param reason: the problem code of the answer. One that is a Reason is a decision, wherever it was taken: an
            object out of scope is refused after the guard has let the request in.
        :param is_admitted: whether its guard let it in, into a company.
        """
        self.by_status[status] = self.by_status.get(status, 0) + 1
        if reason in self.decisions:
            self.decisions[reason] += 1
        elif is_admitted:
            self.decisions[ALLOWED] += 1


class ServiceMetrics:
    """What one service reads of itself. Its parts are there once it has started, if it has them at all."""

    def __init__(self, service: str, *, consumers: WorkConsumers | None) -> None:
        self.service = service
        self.requests = RequestCounts()
        self.access_path: AccessPath | None = None
        self.relay: Relay | None = None
        self.consumers = consumers

    async def read(self) -> list[Reading]:
        """All there is to tell now. To be called on the loop of the service: what it asks belongs to that thread."""
        readings = list(self._of_requests())
        if self.access_path is not None:
            readings += _of_access(self.access_path)
        if self.relay is not None:
            readings += _of_relay(self.relay)
        if self.consumers is not None:
            readings += _of_consumers(self.consumers)
            readings += await self._of_lag(self.consumers)
        return readings

    def _of_requests(self) -> Iterator[Reading]:
        for status, count in self.requests.by_status.items():
            yield Reading(REQUESTS, count, ("none" if status is None else str(status),))
        for reason, count in self.requests.decisions.items():
            yield Reading(DECISIONS, count, (str(reason),))

    async def _of_lag(self, consumers: WorkConsumers) -> list[Reading]:
        """Nothing while Kafka is away: how far its logs are nobody knows then."""
        try:
            async with asyncio.timeout(_LAG_TIMEOUT_SECONDS):
                lags = await consumers.lags()
        except (KafkaError, TimeoutError) as error:
            _log.warning("the lag of consumers cannot be told", service=self.service, reason=repr(error))
            return []
        return [Reading(CONSUMER_LAG, lag.records, (lag.consumer, lag.topic, str(lag.partition))) for lag in lags]


def _of_access(path: AccessPath) -> Iterator[Reading]:
    figures = path.figures()
    yield Reading(ACCESS_READY, figures.is_ready)
    for owner, age_seconds in figures.ages_seconds.items():
        if age_seconds is not None:
            yield Reading(ACCESS_AGE, age_seconds, (owner,))
    for (topic, partition), position in figures.positions.items():
        yield Reading(ACCESS_POSITION, position, (topic, str(partition)))
    for kind, count in figures.quarantined.items():
        yield Reading(QUARANTINED_KEYS, count, (kind,))
    yield Reading(QUARANTINED_PARTITIONS, figures.blocked)


def _of_relay(relay: Relay) -> Iterator[Reading]:
    yield Reading(OUTBOX_LEADER, relay.leads)
    if not relay.leads:
        return  # what it saw when it last led is long gone
    yield Reading(OUTBOX_PENDING, relay.backlog.depth)
    yield Reading(OUTBOX_AGE, relay.oldest_pending_age.total_seconds())
    yield Reading(OUTBOX_SET_ASIDE, relay.backlog.refused)
    is_held_back = bool(relay.refusal or relay.doubt or relay.restoring or relay.lost_topics)
    yield Reading(OUTBOX_HELD_BACK, is_held_back)
    yield Reading(OUTBOX_LOST_LOGS, len(relay.lost_topics | relay.lost_facts))


def _of_consumers(consumers: WorkConsumers) -> Iterator[Reading]:
    for consumer, outcomes in consumers.outcomes.items():
        yield Reading(CONSUMER_STOPPED, consumer in consumers.stopped, (consumer,))
        for outcome, count in outcomes.items():
            yield Reading(CONSUMER_RECORDS, count, (consumer, str(outcome)))
