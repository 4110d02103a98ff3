"""What this instance has applied, told once a second (design §5): whether a revocation has reached everybody follows
from it.

An instance is a cache: the processes that share one are told of together, by the one that writes it. Telling is never
waited for. Without Kafka nothing is told, and who hears nothing counts this instance as one that has not applied it.
"""

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog
from aiokafka.errors import KafkaError

from access.feed import Applied
from access.folder import NoCacheError, holder_of
from access.freshness import OWNERS
from access.path import AccessPath
from access.records import instant_of, microseconds
from contracts.envelope import encode, envelop, headers
from contracts.events.access import AppliedRecord, InstanceStatus, RecordsApplied
from contracts.events.heartbeat import Position
from contracts.identifiers import PLATFORM_COMPANY_ID, new_id
from contracts.topics import BATCH_SIZE_MAX_BYTES, TOPICS, wire_name
from infra.clock import Clock
from infra.kafka.clients import Kafka, Outgoing, RecordProducer
from infra.kafka.producer import REQUEST_TIMEOUT_SECONDS

TOPIC: Final = next(topic for topic in TOPICS if RecordsApplied in topic.payloads)
INTERVAL_SECONDS: Final = 1.0
#: A record does not say its lane. More than these in a second are bulk, of which the positions tell.
_RECORDS_MAX: Final = 500
_SIGN_OFF_SECONDS: Final = 1.0
_ID_LENGTH: Final = 36

_log = structlog.get_logger("kisum.access")


class InstanceFile:
    """The id of a cache, in its environment. Every process that uses the cache holds the file, so that the last knows.

    A cache that is thrown away takes its id along: what comes after it is another instance.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is that of the service's cache."""
        self._folder = folder
        self._environment: Path | None = None
        self._descriptor: int | None = None

    def hold(self) -> None:
        """Count as one of those who use the cache, as soon as there is one."""
        with contextlib.suppress(NoCacheError, FileNotFoundError):
            environment = holder_of(self._folder).environment
            if environment == self._environment:
                return
            self.close()
            descriptor = os.open(environment / "instance", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # The last one is about to leave.
                os.close(descriptor)
            else:
                self._environment, self._descriptor = environment, descriptor

    def id(self) -> str:
        """The cache's id, made where there is none yet; only for the process that writes the cache."""
        if self._descriptor is None:
            raise RuntimeError("the cache is not held")
        with contextlib.suppress(ValueError):
            return str(UUID(os.pread(self._descriptor, _ID_LENGTH, 0).decode("ascii")))
        made = str(new_id())
        os.pwrite(self._descriptor, made.encode("ascii"), 0)
        return made

    def is_last(self) -> bool:
        """Whether nobody else uses the cache. Only who is about to leave asks: the hold may be gone afterwards."""
        if self._descriptor is None:
            return False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._environment = self._descriptor = None


class Acknowledgements:
    """Tells of one service's cache. `note` is given to the access path; then `run`, and at the end `sign_off`."""

    def __init__(self, *, kafka: Kafka, service: str, folder: Path, clock: Clock) -> None:
        self._kafka = kafka
        self._service = service
        self._instance = InstanceFile(folder)
        self._clock = clock
        self._topic = wire_name(kafka.topic_prefix, TOPIC.name)
        # Versions of an instance go on rising when its process is another.
        self._epoch = max(1, microseconds(clock()))
        self._version = 0
        self._applied: deque[tuple[Applied, datetime]] = deque(maxlen=_RECORDS_MAX)
        self._producer: RecordProducer | None = None
        #: None before the first try.
        self._is_heard: bool | None = None

    def note(self, applied: Sequence[Applied]) -> None:
        """Remember states that came to decide just now; told next time."""
        applied_at = self._clock()
        self._applied.extend((each, applied_at) for each in applied[-_RECORDS_MAX:])

    async def run(self, path: AccessPath) -> None:
        """Acknowledge once a second until cancelled. No failure ends it or is anybody else's."""
        while True:
            self._instance.hold()
            if path.cache.is_writer:
                status = InstanceStatus.SERVING if path.ready.is_ready else InstanceStatus.NOT_READY
                await self._acknowledge(path, status)
            else:
                # What was applied before the turn was lost is another process's to tell.
                self._applied.clear()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def sign_off(self, path: AccessPath) -> None:
        """Proofs no longer wait for this instance, if nobody else uses its cache. Takes a second at most.

        Who cannot be told goes on being waited for, as after a crash.
        """
        try:
            if self._is_heard and path.cache.is_writer and self._instance.is_last():
                await self._acknowledge(path, InstanceStatus.STOPPED, timeout_seconds=_SIGN_OFF_SECONDS)
        finally:
            self._instance.close()
            await self._give_up()

    async def _acknowledge(
        self, path: AccessPath, status: InstanceStatus, *, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    ) -> None:
        applied = list(self._applied)
        self._applied.clear()
        try:
            record = self._record(path, status, applied)
            async with asyncio.timeout(timeout_seconds):
                await (await self._started()).send_batch(self._topic, 0, [record])
        except (KafkaError, OSError, TimeoutError) as error:
            if self._is_heard is not False:
                _log.warning("what was applied cannot be acknowledged", service=self._service, reason=repr(error))
            self._is_heard = False
            self._applied.extendleft(reversed(applied))
            await self._give_up()
        except Exception:  # noqa: BLE001  it is logged; an instance that tells nothing still decides
            _log.exception("what was applied could not be acknowledged", service=self._service)
            await self._give_up()
        else:
            self._is_heard = True

    def _record(
        self, path: AccessPath, status: InstanceStatus, applied: Sequence[tuple[Applied, datetime]]
    ) -> Outgoing:
        # Nothing is awaited between these looks, and nobody else writes the cache.
        head = path.cache.head()
        topic_ids = path.cache.topic_ids(head.active)
        positions = path.cache.positions(head.active)
        self._version += 1
        envelope = envelop(
            RecordsApplied(
                instance=self._instance.id(),
                service=self._service,
                status=status,
                generation=head.generation,
                generation_complete=head.complete,
                fresh_as_of={
                    name: as_of
                    for name, owner in zip(OWNERS, head.owners, strict=True)
                    if owner.as_of and (as_of := instant_of(owner.as_of)) is not None
                },
                positions=tuple(
                    Position(topic=topic, topic_id=topic_ids[topic], partition=partition, next_offset=offset)
                    for (topic, partition), offset in sorted(positions.items())
                    if topic in topic_ids
                ),
                records=tuple(
                    AppliedRecord(
                        topic=each.topic,
                        event_id=each.event_id,
                        epoch=each.epoch,
                        version=each.version,
                        applied_at=applied_at,
                    )
                    for each, applied_at in applied
                ),
            ),
            occurred_at=self._clock(),
            company_id=PLATFORM_COMPANY_ID,
            actor_user_id=None,
            epoch=self._epoch,
            version=self._version,
            correlation_id=new_id(),
        )
        return Outgoing(TOPIC.record_key(envelope), encode(envelope), tuple(headers(envelope, None)))

    async def _started(self) -> RecordProducer:
        if self._producer is None:
            self._producer = self._kafka.producer(
                client_id=f"{self._service}-acknowledgements", batch_size_max_bytes=BATCH_SIZE_MAX_BYTES
            )
            await self._producer.start()
        return self._producer

    async def _give_up(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.give_up()
