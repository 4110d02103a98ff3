"""The envelope every event travels in, and the only two functions that turn it into bytes and back (design §3).

What cannot be read is an `UndecodableEventError`; its class says why. On any of them a reader of state quarantines the
record's subject, a consumer of work parks the record.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Generic, NoReturn, Self, TypeVar
from uuid import UUID

from pydantic import UUID7, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from contracts.identifiers import CompanyId, UserId, new_id
from contracts.payload import EVENT_TYPE_PATTERN, INTEGER_MAX, UNKNOWN_STATUS_ERROR, Instant, Payload, Version

#: The largest record value. The outbox refuses more; topics accept a batch of one such record with key and headers.
VALUE_SIZE_MAX_BYTES: Final = 256 * 1024
HEADER_TYPE: Final = "type"
HEADER_TRACEPARENT: Final = "traceparent"

Data = TypeVar("Data", bound=Payload)
Data_co = TypeVar("Data_co", bound=Payload, covariant=True)


class UndecodableEventError(ValueError):
    """A record this reader must not act on. The message holds no value of the record."""


class MalformedEventError(UndecodableEventError):
    """Not JSON, ambiguous JSON, or not of the shape its type has."""


class UnknownEventTypeError(UndecodableEventError):
    """A type this reader was not told of, though its major version may be old."""


class UnknownMajorVersionError(UndecodableEventError):
    """A fact this reader knows, in a major version it does not."""


class UnknownStatusError(UndecodableEventError):
    """A status that was added after this reader was built."""


class WithheldStateError(UndecodableEventError):
    """Data is `{}`: the owner tells of a state the log refused, whose payload has no status that could say `unknown`.

    :ivar epoch, version: the revision of that state.
    """

    def __init__(self, message: str, epoch: int, version: int) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.version = version


class EventTooLargeError(ValueError):
    """The encoded event exceeds VALUE_SIZE_MAX_BYTES."""


class Envelope(BaseModel, Generic[Data_co]):
    """One event. `version` counts the writes of its aggregate within `epoch`; the pair orders its states."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    event_id: UUID7
    type: Annotated[str, StringConstraints(pattern=EVENT_TYPE_PATTERN)]
    occurred_at: Instant
    company_id: CompanyId
    #: Who did it; none where no person did, such as an expiry or a payment provider's report.
    actor_user_id: UserId | None
    aggregate_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    epoch: Version
    version: Version
    correlation_id: UUID
    #: The event or request that led to this one.
    causation_id: UUID | None
    data: Data_co

    @model_validator(mode="after")
    def _describes_its_data(self) -> Self:
        if self.type != self.data.event_type:
            raise ValueError("type is not that of the data")
        if self.aggregate_id != self.data.aggregate_id(self.company_id):
            raise ValueError("aggregate_id is not what the data describes")
        return self


def envelop(
    data: Data,
    *,
    occurred_at: datetime,
    company_id: CompanyId,
    actor_user_id: UserId | None,
    epoch: int,
    version: int,
    correlation_id: UUID,
    causation_id: UUID | None = None,
    event_id: UUID | None = None,
) -> Envelope[Data]:
    """Wrap data for sending; type and aggregate follow from it. A resend gives the `event_id` it had."""
    return _envelope_of(type(data))(
        event_id=event_id or new_id(),
        type=data.event_type,
        occurred_at=occurred_at,
        company_id=company_id,
        actor_user_id=actor_user_id,
        aggregate_id=data.aggregate_id(company_id),
        epoch=epoch,
        version=version,
        correlation_id=correlation_id,
        causation_id=causation_id,
        data=data,
    )


def encode(envelope: Envelope[Any]) -> bytes:
    """The record value: UTF-8 JSON, equal for equal envelopes. Raises EventTooLargeError."""
    value = envelope.model_dump_json().encode()
    if len(value) > VALUE_SIZE_MAX_BYTES:
        raise EventTooLargeError(f"{envelope.type} of {len(value)} bytes; the limit is {VALUE_SIZE_MAX_BYTES}")
    return value


def headers(envelope: Envelope[Any], traceparent: str | None) -> list[tuple[str, bytes]]:
    """The record headers: the type, and the W3C trace context the event was written in."""
    found = [(HEADER_TYPE, envelope.type.encode())]
    if traceparent is not None:
        found.append((HEADER_TRACEPARENT, traceparent.encode()))
    return found


def decode(value: bytes, payloads: Iterable[type[Data]]) -> Envelope[Data]:
    """The event in a record value, of one of these payload types. Raises an UndecodableEventError and nothing else."""
    known = {payload.event_type: payload for payload in payloads}
    envelope = _written_as_always(value, known)
    if envelope is not None:
        return envelope
    document = _unambiguous(value)
    event_type = document.get("type")
    if not isinstance(event_type, str) or not re.fullmatch(EVENT_TYPE_PATTERN, event_type):
        raise MalformedEventError("type is absent or not owner.past-tense-fact.vN")
    if event_type not in known:
        fact = event_type.rpartition(".")[0]
        if any(other.rpartition(".")[0] == fact for other in known):
            raise UnknownMajorVersionError(f"{event_type} is not a version this reader knows")
        raise UnknownEventTypeError(f"{event_type} is not a type this reader knows")
    try:
        return _envelope_of(known[event_type]).model_validate_json(value)
    except ValidationError as refused:
        faults = refused.errors(include_url=False, include_context=False, include_input=False)
        if document.get("data") == {} and all(fault["loc"][:1] == ("data",) for fault in faults):
            raise WithheldStateError(f"{event_type}: without data", document["epoch"], document["version"]) from None
        where = "; ".join(f"/{'/'.join(map(str, fault['loc']))}: {fault['type']}" for fault in faults[:5])
        kind = (
            UnknownStatusError
            if all(fault["type"] == UNKNOWN_STATUS_ERROR for fault in faults)
            else MalformedEventError
        )
        # The cause holds the record's values, which belong in no log.
        raise kind(f"{event_type}: {where}") from None


def _written_as_always(value: bytes, known: Mapping[str, type[Data]]) -> Envelope[Data] | None:
    """The event, if `encode` writes it as exactly these bytes; None is no verdict.

    Such bytes repeat no key and hold no number that readers could differ about, so they need not be looked at for that,
    which takes longer than to write them again. Nearly all records are such.
    """
    if len(known) != 1 or len(value) > VALUE_SIZE_MAX_BYTES:
        return None
    (payload,) = known.values()
    try:
        envelope = _envelope_of(payload).model_validate_json(value)
    except ValidationError:
        return None
    return envelope if envelope.model_dump_json().encode() == value else None


@cache
def _envelope_of(payload: type[Data]) -> type[Envelope[Data]]:
    return Envelope[payload]  # type: ignore[valid-type]


def _unambiguous(value: bytes) -> dict[str, Any]:
    """The JSON object, if every reader would read the same: no repeated key, no NaN, no number beyond 64 bits."""
    if len(value) > VALUE_SIZE_MAX_BYTES:
        raise MalformedEventError("larger than any event may be")
    try:
        document = _STRICT_JSON.decode(value.decode())
    except UnicodeDecodeError:
        raise MalformedEventError("not UTF-8") from None
    except json.JSONDecodeError as refused:
        raise MalformedEventError(f"not JSON: {refused.msg} at {refused.pos}") from None
    except RecursionError:
        raise MalformedEventError("nested too deeply") from None
    if not isinstance(document, dict):
        raise MalformedEventError("not a JSON object")
    return document


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedEventError("a key is repeated")
    return found


def _integer(text: str) -> int:
    # The length first: turning a million digits into a number takes seconds.
    if len(text) > len(str(INTEGER_MAX)) + 1 or abs(number := int(text)) > INTEGER_MAX:
        raise MalformedEventError("a number beyond 64 bits")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedEventError("a number beyond a double")
    return number


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedEventError("NaN and Infinity are not JSON")


_STRICT_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_distinct, parse_int=_integer, parse_float=_finite, parse_constant=_refuse_constant
)
