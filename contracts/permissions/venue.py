"""Permission rows of the Venue module (domain §2). Append only."""

from functools import partial
from typing import Final

from contracts.permissions.row import Permission

_SCOPE_TYPES: Final = ("venue", "space")
_row = partial(Permission, module="venue", scope_types=_SCOPE_TYPES)

ROWS: Final = (
    _row(key="venue.details.read", label="See the venue's details", bit=0),
    _row(key="venue.details.write", label="Change the venue's details", bit=1),
    _row(key="venue.spaces.read", label="See spaces", bit=2),
    _row(key="venue.spaces.write", label="Add and change spaces", bit=3),
    _row(key="venue.layouts.read", label="See layouts", bit=4),
    _row(key="venue.layouts.write", label="Add and change layouts", bit=5),
    _row(key="venue.availability.read", label="See when spaces are free", bit=6),
    _row(key="venue.availability.write", label="Set opening hours and blackouts", bit=7),
    _row(key="venue.holds.read", label="See holds", bit=8),
    _row(key="venue.holds.write", label="Place, answer and release holds", bit=9),
    _row(key="venue.holds.challenge", label="Challenge earlier holds", bit=10),
    _row(key="venue.bookings.read", label="See bookings", bit=11),
    _row(key="venue.bookings.write", label="Add and change bookings", bit=12),
    _row(key="venue.bookings.confirm", label="Confirm bookings", bit=13),
    _row(key="venue.bookings.cancel", label="Cancel bookings or mark them lost", bit=14),
    _row(key="venue.events.read", label="See the venue's events", bit=15),
    _row(key="venue.events.write", label="Add and change the venue's events", bit=16),
    _row(key="venue.deals.read", label="See rental deals", bit=17),
    _row(key="venue.deals.write", label="Add, change and quote rental deals", bit=18),
    _row(key="venue.contracts.read", label="See rental contracts", bit=19),
    _row(key="venue.contracts.write", label="Draft, send and change rental contracts", bit=20),
    _row(key="venue.contracts.approve", label="Approve rental contracts", bit=21),
    _row(key="venue.calendar.export", label="Create calendar feeds", bit=22),
    _row(key="venue.reports.read", label="See utilisation reports", bit=23),
)
