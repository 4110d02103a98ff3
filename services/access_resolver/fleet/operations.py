import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from access import feed
from access.acknowledgements import TOPIC
from access.ingest import MEMBERSHIPS, partition_of
from access.path import AccessPath
from access.records import membership_key, version_of
from access.unknown import StateUnknownError
from contracts.envelope import Envelope, UndecodableEventError, decode
from contracts.events.access import InstanceStatus, RecordsApplied
from contracts.identifiers import CompanyId, UserId
from contracts.problems import Reason
from contracts.topics import wire_name
from infra.clock import Clock
from infra.kafka.clients import Kafka, stop_reader
from services.access_resolver.fleet import rules
from services.access_resolver.fleet.rules import Instance, Position, Proof, Target

_POLL_MILLISECONDS: Final = 500
_READ_TIMEOUT_SECONDS: Final = 30.0
_BATCH_RECORDS: Final = 100
_FETCH_MAX_BYTES: Final = 1024 * 1024
#: The resolver itself acknowledges each second: a client that brings nothing for so long is stuck.
_SILENCE_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 1.0
_SUBJECTS_MAX: Final = 20_000
#: Of each instance the events it told of last; what is older is known by its position.
_EVENTS_MAX: Final = 2_000

Key = TypeVar("Key")
Value = TypeVar("Value")

_log = structlog.get_logger("kisum.fleet")


class FleetSilentError(Exception):
    """No acknowledgement for so long that the client is taken for stuck, or the topic is missing."""


@dataclass(frozen=True)
class ProofOfState:
    """Whether the newest state of a membership that is known here has reached everybody."""

    revision: str
    #: The fleet as it was heard up to then.
    as_of: datetime
    proof: Proof


class Fleet:
    """The instances as they tell of themselves, kept in memory: another start reads the topic again.

    The topic has one partition and keeps an hour, which is longer than an instance counts.
    """

    def __init__(self, kafka: Kafka, clock: Clock) -> None:
        self._kafka = kafka
        self._clock = clock
        self._topic = wire_name(kafka.topic_prefix, TOPIC.name)
        self._instances: dict[str, Instance] = {}
        #: By membership, as the cache keys it: the state this instance applied last, and in which event it came.
        self._events: OrderedDict[bytes, tuple[int, int, UUID]] = OrderedDict()
        self._targets: OrderedDict[bytes, Target] = OrderedDict()

    # Hearing.

    def note(self, applied: Sequence[feed.Applied]) -> None:
        """Remember in which event the newest state of a membership came, so that its arrival elsewhere can be told."""
        for each in applied:
            if each.topic == MEMBERSHIPS:
                _remember(self._events, each.key, (each.epoch, each.version, each.event_id))

    async def follow(self) -> None:
        """Read what instances acknowledge until cancelled. Every failure is logged, and all is read again."""
        while True:
            try:
                await self._follow()
            except (KafkaError, OSError, TimeoutError, FleetSilentError) as error:
                _log.warning("the fleet is not heard", reason=f"{type(error).__name__}: {error}")
            except Exception:  # noqa: BLE001  one that ended would look like a fleet that fell silent
                _log.exception("the fleet is not heard, unexpectedly")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self) -> None:
        self._instances = {}
        reader = self._kafka.reader(
            client_id="access_resolver-fleet",
            wait_max_milliseconds=_POLL_MILLISECONDS,
            partition_fetch_max_bytes=_FETCH_MAX_BYTES,
        )
        partition = TopicPartition(self._topic, 0)
        try:
            await reader.start()
            if not (await reader.partition_counts([self._topic]))[self._topic]:
                raise FleetSilentError(f"{self._topic} is missing")
            begin, _ = (await reader.bounds([partition]))[partition]
            reader.assign({partition: begin})
            heard_at = time.monotonic()
            while True:
                async with asyncio.timeout(_READ_TIMEOUT_SECONDS):
                    batches = await reader.read(timeout_milliseconds=_POLL_MILLISECONDS, records_max=_BATCH_RECORDS)
                for record in batches.get(partition, ()):
                    self.hear(record.key, record.value)
                if batches:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > _SILENCE_SECONDS:
                    raise FleetSilentError(f"nothing for {_SILENCE_SECONDS:g} s")
                # An hour of them must not keep requests waiting.
                await asyncio.sleep(0)
        finally:
            await stop_reader(reader)

    def hear(self, key: bytes | None, value: bytes | None) -> None:
        """Take in an acknowledgement. What cannot be read keeps its instance among those that count."""
        envelope = _acknowledgement(key, value)
        if envelope is None:
            name = (key or b"").decode("ascii", "replace")
            self._instances[name] = _unreadable(name, self._clock())
            return
        told = envelope.data
        known = self._instances.get(told.instance)
        applied_at = {**known.applied_at} if known is not None else {}
        applied_at |= {each.event_id: each.applied_at for each in told.records}
        for event_id in list(applied_at)[:-_EVENTS_MAX]:
            del applied_at[event_id]
        self._instances[told.instance] = Instance(
            id=told.instance,
            service=told.service,
            status=told.status,
            generation=told.generation,
            is_complete=told.generation_complete,
            last_seen=envelope.occurred_at,
            fresh_as_of=told.fresh_as_of,
            positions={
                (each.topic, each.partition): Position(each.topic_id, each.next_offset) for each in told.positions
            },
            applied_at=applied_at,
        )

    # Telling.

    def instances(self) -> tuple[list[Instance], datetime | None]:
        """All that were heard within the hour, by service, and up to when the fleet was heard."""
        found = sorted(self._instances.values(), key=lambda each: (each.service or "", each.id))
        return found, rules.newest_word(found, self._clock())

    def prove(self, path: AccessPath, company_id: CompanyId, user_id: UserId) -> ProofOfState:
        """Whether the newest state of a membership has reached every instance.

        Raises MembershipUnknownError, FleetUnheardError, and StateUnknownError where the state is not known here.
        """
        instances, as_of = self.instances()
        target = self._target(path, company_id, user_id)
        return ProofOfState(
            revision=f"{MEMBERSHIPS}:{company_id}/{user_id}:{target.epoch}:{target.version}",
            as_of=rules.check_heard(as_of, self._clock()),
            proof=rules.prove(instances, target, self._clock()),
        )

    def _target(self, path: AccessPath, company_id: CompanyId, user_id: UserId) -> Target:
        decision = path.decide_active_member(company_id, user_id, reading=True)
        if decision.reason is Reason.STATE_UNKNOWN:
            raise StateUnknownError(decision.detail or "the membership is not known")
        key = membership_key(company_id, user_id)
        head, (record,) = path.cache.read((key,))
        if record is None:
            raise rules.MembershipUnknownError
        epoch, version = version_of(record)
        known = self._targets.get(key)
        if known is not None and (known.epoch, known.version) == (epoch, version) and known.position is not None:
            return known
        *revision, event_id = self._events.get(key, (0, 0, None))
        partition = partition_of(MEMBERSHIPS, f"{company_id}/{user_id}".encode())
        target = Target(
            epoch=epoch,
            version=version,
            event_id=event_id if revision == [epoch, version] else None,
            partition=partition,
            # What is applied here lies below. Remembered: nobody would ever catch up with a busy log.
            position=_position(path, head.active, partition),
        )
        _remember(self._targets, key, target)
        return target


def _acknowledgement(key: bytes | None, value: bytes | None) -> Envelope[RecordsApplied] | None:
    try:
        envelope = decode(value or b"", (RecordsApplied,))
    except UndecodableEventError as error:
        _log.error("an acknowledgement cannot be read", reason=f"{type(error).__name__}: {error}")
        return None
    if TOPIC.record_key(envelope) != key:
        _log.error("an acknowledgement cannot be read", reason="the record's key is not that of its event")
        return None
    return envelope


def _unreadable(name: str, now: datetime) -> Instance:
    return Instance(
        id=name,
        service=None,
        status=InstanceStatus.NOT_READY,
        generation=0,
        is_complete=False,
        last_seen=now,
        fresh_as_of={},
        positions={},
        applied_at={},
    )


def _position(path: AccessPath, generation: int, partition: tuple[str, int]) -> Position | None:
    topic_id = path.cache.topic_ids(generation).get(partition[0])
    next_offset = path.cache.positions(generation).get(partition)
    return None if topic_id is None or next_offset is None else Position(topic_id, next_offset)


def _remember(memory: "OrderedDict[Key, Value]", key: Key, value: Value) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _SUBJECTS_MAX:
        memory.popitem(last=False)
