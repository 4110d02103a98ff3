"""What the promoter service publishes: the entities every module shares, events and artists."""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import StringConstraints

from contracts.identifiers import CompanyId
from contracts.payload import Currency, Instant, OpenStatus, Part, Payload

#: What an event, a venue or an artist is called on a poster.
PublicText = Annotated[str, StringConstraints(min_length=1, max_length=200)]
#: IANA.
TimeZone = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}$")]
#: ISO 3166-1 alpha-2.
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


class EventStatus(OpenStatus):
    """Where an event stands."""

    DRAFT = "draft"
    HOLD = "hold"
    CONFIRMED = "confirmed"
    ANNOUNCED = "announced"
    ON_SALE = "on_sale"
    IN_SETTLEMENT = "in_settlement"
    SETTLED = "settled"
    CANCELLED = "cancelled"
    POSTPONED = "postponed"
    #: There is no such event, though one was told of: its database was restored.
    REMOVED = "removed"
    #: Published in place of a state that could not be.
    UNKNOWN = "unknown"


class ArtistStatus(OpenStatus):
    """Whether there is such an artist."""

    ACTIVE = "active"
    REMOVED = "removed"
    UNKNOWN = "unknown"


class EventTimes(Part):
    """When an event is, from `starts_at` up to and without `ends_at`, and by whose clocks it is announced."""

    starts_at: Instant
    ends_at: Instant
    time_zone: TimeZone


class EventChanged(Payload):
    """All that is known of an event now. Replaces what was known of it."""

    event_type: ClassVar[str] = "promoter.event-changed.v1"

    event_id: UUID
    status: EventStatus
    #: None for one that was removed; so are all fields below.
    title: PublicText | None
    business_unit_id: UUID | None
    #: None also of one whose date is not known, or not known any more: it was postponed.
    times: EventTimes | None
    #: A space of the venue service, or where it is in words.
    space_id: UUID | None
    venue_text: PublicText | None
    #: What its money is counted in.
    currency: Currency | None

    def aggregate_id(self, company_id: CompanyId) -> str:
        """The event, behind its company: whoever restores states knows whose rows to look at."""
        return f"{company_id}/{self.event_id}"


class ArtistChanged(Payload):
    """An artist as a company's people know them. The stage name is public; who the person is stands nowhere here."""

    event_type: ClassVar[str] = "promoter.artist-changed.v1"

    artist_id: UUID
    status: ArtistStatus
    #: None for one that was removed.
    stage_name: PublicText | None
    genre: PublicText | None
    country: Country | None

    def aggregate_id(self, company_id: CompanyId) -> str:
        """The artist, behind the company whose reference data it is."""
        return f"{company_id}/{self.artist_id}"
