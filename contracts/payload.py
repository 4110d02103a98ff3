"""What every event's data is made of: the frozen base, instants, names, and statuses that may grow."""

import re
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from contracts.identifiers import CompanyId

#: JSON numbers beyond this are read differently by different readers; it is also the range of a PostgreSQL bigint.
INTEGER_MAX: Final = 2**63 - 1

#: Beyond what counting up reaches: a restore an hour for a century, a write a millisecond for thirty years. No reader
#: believes a state that says more: it would hold its key for ever against everything its owner writes later.
EPOCH_MAX: Final = 1_000_000
VERSION_MAX: Final = 2**40

UNKNOWN_STATUS_ERROR: Final = "unknown_status"
EVENT_TYPE_PATTERN: Final = r"^[a-z][a-z_]*\.[a-z][a-z]*(-[a-z]+)*\.v[1-9][0-9]{0,3}$"


def _in_utc(value: datetime) -> datetime:
    if value.utcoffset() != timedelta(0):
        raise ValueError("an instant is written in UTC")
    return value.replace(tzinfo=UTC)


#: A point in time, in UTC.
Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]
SLUG_PATTERN: Final = r"^[a-z][a-z0-9_]{0,63}$"
#: A catalog name: module, capability, package, scope type.
Slug = Annotated[str, StringConstraints(pattern=SLUG_PATTERN)]
#: A permission key as it travels. Its first part is the module key, except in legacy keys (contracts.permissions).
PermissionKey = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*){2,}$", max_length=120)]
OPAQUE_ID_PATTERN: Final = r"^[A-Za-z0-9_.:-]{1,120}$"
#: An opaque id whose form its owner chooses: a scope's object, a key id, an instance.
OpaqueId = Annotated[str, StringConstraints(pattern=OPAQUE_ID_PATTERN)]
#: ISO 4217.
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
#: Money in the currency's minor unit: 19900 is 199.00 USD.
AmountMinor = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
Count = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
Version = Annotated[int, Field(ge=1, le=INTEGER_MAX)]


class Part(BaseModel):
    """A piece of an event's data: frozen, exact types; fields a newer writer added are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Payload(Part):
    """The data of one event type."""

    #: `owner.past-tense-fact.vN`; each payload class names its own.
    event_type: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """A payload class that can be sent names its type."""
        event_type = getattr(cls, "event_type", None)
        if event_type is not None and not re.fullmatch(EVENT_TYPE_PATTERN, event_type):
            raise TypeError(f"{cls.__name__}: {event_type!r} is not owner.past-tense-fact.vN")

    @abstractmethod
    def aggregate_id(self, company_id: CompanyId) -> str:
        """The thing this data describes; on state topics also the record's key."""


class OpenStatus(StrEnum):
    """A status that may get new values within a major version.

    The schema says `string` and lists the values known today. A value this reader does not know is refused with an
    error of its own, never mapped to a default: what it would mean is not known, so the subject is quarantined.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Text that is one of the members."""
        return core_schema.no_info_after_validator_function(
            cls._known,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """An open string: a closed enum would promise readers that nothing is ever added."""
        return {"type": "string", "x-known-values": [member.value for member in cls]}

    @classmethod
    def _known(cls, value: str) -> "OpenStatus":
        if value not in cls._value2member_map_:
            raise PydanticCustomError(UNKNOWN_STATUS_ERROR, "not a status this version knows")
        return cls(value)
