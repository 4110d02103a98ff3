"""Consumers of work (design §6): each event takes effect once, is tried again, or is put aside with the reason.

The one place that builds FastStream subscribers, with every default that matters said. A record comes to one of four
outcomes. The effect and the note of it in the inbox are one transaction, so what comes again changes nothing. What can
never be applied goes to the service's dead letters, as it was, and the next record follows.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.schemas import Topic as Subscription
from faststream.security import SASLScram512
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import Envelope, UndecodableEventError, decode
from contracts.errors import DomainError, Kind
from contracts.topics import Topic, dead_letters_of, group_prefix, wire_name
from infra.clock import Clock
from infra.inbox import is_first
from infra.kafka.clients import LOOK_ROUND_MILLISECONDS
from infra.kafka.connection import KafkaConnection
from infra.kafka.producer import REQUEST_TIMEOUT_SECONDS, give_up, new_producer
from infra.kafka.starting import start_whole, stop_whole
from infra.postgres.database import Database
from infra.tasks import end_tasks

_SESSION_TIMEOUT_MILLISECONDS: Final = 10_000
_HEARTBEAT_INTERVAL_MILLISECONDS: Final = 3_000
_POLL_INTERVAL_MAX_MILLISECONDS: Final = 5 * 60_000
#: How long the broker keeps a fetch while there is no record; one that comes is answered at once. Whoever asks for the
#: end of the log waits behind it, on the same connection, and metrics wait for 2 s.
_FETCH_WAIT_MILLISECONDS: Final = 1000
#: How long one delivery is tried for before the record is delivered again: well below the interval between two polls.
_RETRY_MAX_SECONDS: Final = 60.0
_BACKOFF_MIN_SECONDS: Final = 0.1
_BACKOFF_MAX_SECONDS: Final = 5.0
#: An error that is nobody's word for "later" is most likely the record's.
_UNEXPECTED_TRIES_MAX: Final = 5
_START_INTERVAL_SECONDS: Final = 1.0
_STOP_TIMEOUT_SECONDS: Final = 15.0
_UNDECODABLE: Final = "undecodable"
_TRY_LATER: Final = frozenset({Kind.UNAVAILABLE, Kind.TOO_MANY})
#: serialization_failure, deadlock_detected, lock_not_available, query_canceled (by the statement timeout)
_TRANSIENT_STATES: Final = frozenset({"40001", "40P01", "55P03", "57014"})

_log: Final = structlog.get_logger("kisum.work")
_library_log: Final = logging.getLogger("kisum.work.faststream")
# It warns at each start that it will not create topics.
_library_log.setLevel(logging.ERROR)


class ParkError(Exception):
    """What a handler raises for an event it will never be able to apply."""

    def __init__(self, reason: str, *, code: str = "parked") -> None:
        """Both are written to the dead letter, the reason also to the log; it names no person."""
        super().__init__(reason)
        self.reason = reason
        self.code = code


class ConsumerStoppedError(Exception):
    """The consumer parks too much and takes no further record."""


class Outcome(StrEnum):
    """What became of one delivery of a record."""

    DONE = "done"
    DUPLICATE = "duplicate"
    #: Not now. The record is delivered again, and none of its partition overtakes it.
    RETRY = "retry"
    PARK = "park"


@dataclass(frozen=True)
class WorkConsumer:
    """Applies the events of one topic, in the order of their keys.

    :param name: fixed for ever: it names the consumer's group and its rows in the inbox.
    :param handle: applies one event through a unit of work of its company and does not commit. It raises ParkError or a
        DomainError for what can never be applied, a DomainError of kind `unavailable` for what can be later.
    :param has_inbox: false where to apply an event again is to change nothing, as where versions are compared: then
        nothing is kept of each event, and a replay finds nothing in its way.
    :param unreadable: is told the key and the value of a record that cannot be read, before that is parked.
    """

    name: str
    topic: Topic
    handle: Callable[[AsyncSession, Envelope[Any]], Awaitable[None]]
    has_inbox: bool = True
    unreadable: Callable[[AsyncSession, bytes | None, bytes | None], Awaitable[None]] | None = None


@dataclass(frozen=True)
class ParkRate:
    """More than `count` within `period`, and the fault is not the records': the consumer stops."""

    count: int = 20
    period: timedelta = timedelta(minutes=1)


@dataclass(frozen=True)
class Lag:
    """How many offsets a consumer is behind the end of a partition; compaction leaves fewer records than that.

    :ivar topic: by the registry's name.
    """

    consumer: str
    topic: str
    partition: int
    records: int


class WorkConsumers:
    """All consumers of one service.

    :ivar stopped: why each consumer that stopped itself did, by its name; it starts again with the process.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        database: Database,
        service_name: str,
        consumers: Sequence[WorkConsumer],
        clock: Clock,
        *,
        park_rate: ParkRate | None = None,
    ) -> None:
        self._kafka = kafka
        self._service_name = service_name
        self._consumers = consumers
        self._dead_letters = _DeadLetters(kafka, dead_letters_of(service_name), clock)
        self.stopped: dict[str, str] = {}
        self._workers = [
            _Worker(consumer, database, self._dead_letters, clock, park_rate or ParkRate(), self._stop_one)
            for consumer in consumers
        ]
        self._starting: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._broker: KafkaBroker | None = None

    async def start(self) -> None:
        """Begin; returns at once, and while Kafka is away goes on trying."""
        self._starting = asyncio.create_task(self._keep_starting())

    async def stop(self) -> None:
        """Let the records that are being applied end, then leave the groups."""
        if self._starting is not None:
            await end_tasks(self._starting)
        if self._stopping:
            await asyncio.wait(self._stopping)
        if self._broker is not None:
            await stop_whole(self._broker.stop(), timeout_seconds=2 * _STOP_TIMEOUT_SECONDS)
        await self._dead_letters.close()

    @property
    def outcomes(self) -> Mapping[str, Mapping[Outcome, int]]:
        """How often each consumer came to each outcome in this process; a record counts each time it is tried again."""
        return {worker.consumer.name: worker.outcomes for worker in self._workers}

    async def lags(self) -> list[Lag]:
        """Of each partition that this process has, by asking the broker. Raises KafkaError where it does not know, and
        may wait for as long as that is away.
        """
        return [lag for found in await asyncio.gather(*(worker.lags() for worker in self._workers)) for lag in found]

    async def _keep_starting(self) -> None:
        while True:
            self._broker = self._build()
            try:
                await start_whole(self._broker.start())
            except (KafkaError, OSError, TimeoutError) as error:
                _log.warning("consumers wait for Kafka", service=self._service_name, reason=repr(error))
            except Exception:  # noqa: BLE001  consumers that never started would look like ones with nothing to do
                _log.exception("consumers could not be started and are tried again", service=self._service_name)
            else:
                return
            await stop_whole(self._broker.stop(), timeout_seconds=2 * _STOP_TIMEOUT_SECONDS)
            await asyncio.sleep(_START_INTERVAL_SECONDS)

    def _build(self) -> KafkaBroker:
        given = self._kafka.aiokafka()
        broker = KafkaBroker(
            given["bootstrap_servers"],
            client_id=f"work-{self._service_name}",
            security=SASLScram512(
                username=self._kafka.username,
                password=self._kafka.password,
                use_ssl=given["ssl_context"] is not None,
                ssl_context=given["ssl_context"],
            ),
            consumer_only=True,
            allow_auto_create_topics=False,
            graceful_timeout=_STOP_TIMEOUT_SECONDS,
            # With types applied, each parameter taken from the context costs a thread hop.
            apply_types=False,
            logger=_library_log,
        )
        for worker in self._workers:
            consumer = worker.consumer
            subscriber = broker.subscriber(
                Subscription(wire_name(self._kafka.topic_prefix, consumer.topic.name), declare=False),
                group_id=group_prefix(self._kafka.topic_prefix, self._service_name) + consumer.name,
                auto_offset_reset="earliest",
                ack_policy=AckPolicy.NACK_ON_ERROR,
                batch=False,
                no_reply=True,
                session_timeout_ms=_SESSION_TIMEOUT_MILLISECONDS,
                heartbeat_interval_ms=_HEARTBEAT_INTERVAL_MILLISECONDS,
                max_poll_interval_ms=_POLL_INTERVAL_MAX_MILLISECONDS,
                fetch_max_wait_ms=_FETCH_WAIT_MILLISECONDS,
                consumer_timeout_ms=LOOK_ROUND_MILLISECONDS,
                parser=_parse,
                decoder=_record_of,
            )
            subscriber(worker.consume)
            worker.subscriber = subscriber
        return broker

    def _stop_one(self, worker: "_Worker", reason: str) -> None:
        """Have a consumer leave its group; not from within, since leaving waits for the record it is at."""
        self.stopped[worker.consumer.name] = reason
        if worker.subscriber is not None:
            leaving = asyncio.create_task(worker.subscriber.stop())
            self._stopping.add(leaving)
            leaving.add_done_callback(self._stopping.discard)


def is_filler(key: bytes | None, value: bytes | None) -> bool:
    """Whether an owner has filled a log that lost its tail with this (decision 0013): it tells nothing of anything."""
    return value is None and not key


def event_of(topic: Topic, key: bytes | None, value: bytes | None) -> Envelope[Any]:
    """The event of a record. Raises ParkError where it is none that this topic may hold."""
    if value is None:
        raise ParkError("a record without a value", code=_UNDECODABLE)
    try:
        envelope: Envelope[Any] = decode(value, topic.payloads)
    except UndecodableEventError as error:
        raise ParkError(f"{type(error).__name__}: {error}", code=_UNDECODABLE) from error
    if key != topic.record_key(envelope):
        raise ParkError("the record's key is not the event's", code=_UNDECODABLE)
    return envelope


async def _parse(record: ConsumerRecord[Any, Any], parse: Callable[[Any], Awaitable[Any]]) -> Any:
    # FastStream decodes headers as text and would deliver a record with others again and again.
    message = await parse(replace(record, headers=()))
    message.raw_message = record
    return message


async def _record_of(message: Any) -> Any:
    return message.raw_message


class _Subscriber(Protocol):
    """FastStream's, as far as it is of use here. It has its consumer while it runs."""

    consumer: AIOKafkaConsumer | None

    async def stop(self) -> None: ...


class _Worker:
    """Brings the records of one consumer to their outcome."""

    def __init__(
        self,
        consumer: WorkConsumer,
        database: Database,
        dead_letters: "_DeadLetters",
        clock: Clock,
        park_rate: ParkRate,
        stop: "Callable[[_Worker, str], None]",
    ) -> None:
        self.consumer = consumer
        self._database = database
        self._dead_letters = dead_letters
        self._clock = clock
        self._park_rate = park_rate
        self._parked_at: deque[datetime] = deque()
        self._stop = stop
        self._is_stopped = False
        self.outcomes = dict.fromkeys(Outcome, 0)
        #: The partition of the record that is being applied.
        self._in_hand: int | None = None
        #: What brings it its records; none before the first start.
        self.subscriber: _Subscriber | None = None

    async def consume(self, record: ConsumerRecord[Any, Any]) -> None:
        """Returns when the record is done with; raises so that it is delivered again."""
        if self._is_stopped:
            raise ConsumerStoppedError
        self._in_hand = record.partition
        try:
            outcome = await self._outcome_of(record)
        finally:
            self._in_hand = None
        self.outcomes[outcome] += 1
        level = logging.WARNING if outcome is Outcome.PARK else logging.DEBUG
        _log.log(
            level,
            "a record was consumed",
            consumer=self.consumer.name,
            topic=self.consumer.topic.name,
            partition=record.partition,
            offset=record.offset,
            outcome=str(outcome),
        )

    async def lags(self) -> list[Lag]:
        """Raises KafkaError."""
        client = None if self.subscriber is None else self.subscriber.consumer
        if client is None or not client.assignment():
            return []
        ends = await client.end_offsets(list(client.assignment()))
        return [
            Lag(
                self.consumer.name,
                self.consumer.topic.name,
                one.partition,
                # The one in hand counts as taken there, and is not done with.
                max(0, end - await client.position(one) + (one.partition == self._in_hand)),
            )
            for one, end in ends.items()
        ]

    async def _outcome_of(self, record: ConsumerRecord[Any, Any]) -> Outcome:
        if is_filler(record.key, record.value):
            return Outcome.DONE
        tries = 0
        waited_seconds = 0.0
        while True:
            tries += 1
            try:
                return await self._apply(record)
            except ParkError as error:
                return await self._park(record, error.code, error.reason)
            except DomainError as error:
                if error.kind not in _TRY_LATER:
                    return await self._park(record, error.code, error.detail)
                reason: Exception = error
            except Exception as error:  # noqa: BLE001 - bounded, then parked with its reason
                if not _is_transient(error) and tries >= _UNEXPECTED_TRIES_MAX:
                    _log.exception("an event could not be applied", consumer=self.consumer.name)
                    return await self._park(record, "unexpected", type(error).__name__)
                reason = error
            self.outcomes[Outcome.RETRY] += 1
            pause_seconds = min(_BACKOFF_MIN_SECONDS * 2 ** (tries - 1), _BACKOFF_MAX_SECONDS)
            waited_seconds += pause_seconds
            _log.warning(
                "an event is tried again",
                consumer=self.consumer.name,
                partition=record.partition,
                offset=record.offset,
                tries=tries,
                reason=type(reason).__name__,
                outcome=str(Outcome.RETRY),
            )
            if waited_seconds > _RETRY_MAX_SECONDS:
                raise reason
            await asyncio.sleep(pause_seconds)

    async def _apply(self, record: ConsumerRecord[Any, Any]) -> Outcome:
        consumer = self.consumer
        try:
            envelope = event_of(consumer.topic, record.key, record.value)
        except ParkError as error:
            if consumer.unreadable is None:
                raise
            async with self._database.unit_of_work() as work:
                await consumer.unreadable(work, record.key, record.value)
            # It was taken note of, and is no sign that something is wrong with this consumer.
            return await self._put_aside(record, error.code, error.reason)
        async with self._database.unit_of_work(company_id=envelope.company_id) as work:
            if consumer.has_inbox and not await is_first(work, consumer=consumer.name, event_id=envelope.event_id):
                return Outcome.DUPLICATE
            await consumer.handle(work, envelope)
        return Outcome.DONE

    async def _park(self, record: ConsumerRecord[Any, Any], code: str, reason: str) -> Outcome:
        now = self._clock()
        while self._parked_at and self._parked_at[0] <= now - self._park_rate.period:
            self._parked_at.popleft()
        if len(self._parked_at) >= self._park_rate.count:
            why = f"{len(self._parked_at) + 1} records within {self._park_rate.period} could not be applied: {reason}"
            _log.error("a consumer stops", consumer=self.consumer.name, reason=why)
            self._is_stopped = True
            self._stop(self, why)
            raise ConsumerStoppedError
        outcome = await self._put_aside(record, code, reason)
        self._parked_at.append(now)
        return outcome

    async def _put_aside(self, record: ConsumerRecord[Any, Any], code: str, reason: str) -> Outcome:
        await self._dead_letters.put(record, consumer=self.consumer.name, code=code, reason=reason)
        return Outcome.PARK


def _is_transient(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _TRANSIENT_STATES


class _DeadLetters:
    """Writes records aside as they were, key, value and headers; further headers say where they come from and why."""

    def __init__(self, kafka: KafkaConnection, topic: Topic, clock: Clock) -> None:
        self._kafka = kafka
        self._topic = wire_name(kafka.topic_prefix, topic.name)
        self._clock = clock
        self._producer: AIOKafkaProducer | None = None
        self._one_at_a_time = asyncio.Lock()
        self.failures = 0

    async def put(self, record: ConsumerRecord[Any, Any], *, consumer: str, code: str, reason: str) -> None:
        """Returns when it is written. Raises KafkaError or TimeoutError; the record is then delivered again."""
        added = {
            "dead-letter-consumer": consumer,
            "dead-letter-code": code,
            "dead-letter-reason": reason,
            "dead-letter-topic": record.topic.removeprefix(self._kafka.topic_prefix),
            "dead-letter-partition": str(record.partition),
            "dead-letter-offset": str(record.offset),
            "dead-letter-at": self._clock().isoformat(),
        }
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                    producer = await self._started()
                    await producer.send_and_wait(
                        self._topic,
                        # Kafka takes no record that has neither.
                        key=b"" if record.key is None and record.value is None else record.key,
                        value=record.value,
                        headers=[*record.headers, *((name, value.encode()) for name, value in added.items())],
                    )
            except (KafkaError, TimeoutError, OSError) as error:
                self.failures += 1
                _log.error("a dead letter could not be written", consumer=consumer, reason=repr(error))
                await self._give_up()
                # A partition whose records are delivered again at once would spin.
                await asyncio.sleep(_START_INTERVAL_SECONDS)
                raise

    async def close(self) -> None:
        async with self._one_at_a_time:
            await self._give_up()

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = new_producer(self._kafka, client_id="dead-letters")
            await start_whole(self._producer.start())
        return self._producer

    async def _give_up(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await give_up(producer)
