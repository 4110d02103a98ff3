"""Permission rows of the Promoter module (domain §2). Append only."""

from functools import partial
from typing import Final

from contracts.permissions.row import Permission, Status

_SCOPE_TYPES: Final = ("business_unit", "event")
_row = partial(Permission, module="promoter", scope_types=_SCOPE_TYPES)

ROWS: Final = (
    _row(key="promoter.dashboard.read", label="See the dashboard", bit=0),
    _row(key="promoter.artists.read", label="See artists", bit=1),
    _row(key="promoter.artist-analytics.read", label="See artist analytics", bit=2),
    _row(key="promoter.charts.read", label="See charts", bit=3),
    _row(key="promoter.contacts.read", label="See contacts", bit=4),
    _row(key="promoter.contacts.write", label="Add and change contacts", bit=5),
    _row(key="promoter.availability.read", label="See when artists are available", bit=6),
    _row(key="promoter.bookings.read", label="See bookings", bit=7),
    _row(key="promoter.bookings.write", label="Add and change bookings", bit=8),
    _row(key="promoter.offers.read", label="See offers to artists", bit=9),
    _row(key="promoter.offers.write", label="Make and revise offers to artists", bit=10),
    _row(key="promoter.contracts.read", label="See contracts", bit=11),
    _row(key="promoter.contracts.write", label="Draft and change contracts", bit=12),
    _row(key="promoter.deals.read", label="See deals", bit=13),
    _row(key="promoter.deals.write", label="Add and change deals", bit=14),
    _row(key="promoter.events.read", label="See events", bit=15),
    _row(key="promoter.events.create", label="Create events", bit=16),
    _row(key="promoter.events.update", label="Change events", bit=17),
    _row(key="promoter.events.cancel", label="Cancel events", bit=18),
    _row(key="promoter.calendar.read", label="See the calendar", bit=19),
    _row(key="promoter.market-study.read", label="See market studies", bit=20),
    _row(key="promoter.event-value.read", label="See the estimated value of events", bit=21),
    _row(key="promoter.pnl.read", label="See estimated profit and loss", bit=22),
    _row(key="promoter.pnl.write", label="Change estimated profit and loss", bit=23),
    _row(key="promoter.reports.read", label="See event reports", bit=24),
    _row(key="promoter.ticket-sales.read", label="See live ticket sales", bit=25, capability="live_ticket_sales"),
    _row(key="promoter.tasks.read", label="See tasks", bit=26),
    _row(key="promoter.tasks.manage", label="Add, assign and complete tasks", bit=27),
    _row(key="promoter.news.read", label="Read the news", bit=28),
    _row(key="promoter.market-data.read", label="See market data", bit=29),
    _row(key="promoter.festival-ranking.read", label="See the ranking of festivals", bit=30),
    _row(key="promoter.top-promoters.read", label="See the ranking of promoters", bit=31),
    _row(key="promoter.venue.read", label="See own venue contacts and shortlists", bit=32),
    _row(key="promoter.venue.request", label="Send enquiries to venues", bit=33),
    _row(key="promoter.venue.directory.read", label="Search the venue directory", bit=34, capability="venue_directory"),
    _row(
        key="promoter.vendor.directory.read", label="Search the vendor directory", bit=35, capability="vendor_directory"
    ),
    # Legacy keys.
    _row(
        key="basic.artists.read",
        label="See artists",
        bit=36,
        alias_of="promoter.artists.read",
        status=Status.DEPRECATED,
    ),
    _row(
        key="basic.events.create",
        label="Create events",
        bit=37,
        alias_of="promoter.events.create",
        status=Status.DEPRECATED,
    ),
    _row(
        key="basic.events.update",
        label="Change events",
        bit=38,
        alias_of="promoter.events.update",
        status=Status.DEPRECATED,
    ),
    _row(
        key="basic.tasks.manage",
        label="Add, assign and complete tasks",
        bit=39,
        alias_of="promoter.tasks.manage",
        status=Status.DEPRECATED,
    ),
    _row(
        key="basic.market-study.read",
        label="See market studies",
        bit=40,
        alias_of="promoter.market-study.read",
        status=Status.DEPRECATED,
    ),
    _row(
        key="market.contracts.read",
        label="See contracts",
        bit=41,
        alias_of="promoter.contracts.read",
        status=Status.DEPRECATED,
    ),
)
