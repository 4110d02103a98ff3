"""Permission rows of the Artist module (domain §2). Append only."""

from functools import partial
from typing import Final

from contracts.permissions.row import Permission, Status

_SCOPE_TYPES: Final = ("artist",)
_row = partial(Permission, module="artist", scope_types=_SCOPE_TYPES)

ROWS: Final = (
    _row(key="artist.profile.view", label="See artist and agency profiles", bit=0),
    _row(key="artist.profile.edit", label="Change artist and agency profiles", bit=1),
    _row(key="artist.roster.view", label="See the roster", bit=2),
    _row(key="artist.roster.manage", label="Add and remove artists on the roster", bit=3),
    _row(key="artist.representation.manage", label="Set who represents an artist, where and when", bit=4),
    _row(key="artist.availability.view", label="See when artists are available", bit=5),
    _row(key="artist.availability.edit", label="Change when artists are available", bit=6),
    _row(key="artist.offer.view", label="See offers received", bit=7),
    _row(key="artist.offer.manage", label="Counter, accept and decline offers", bit=8),
    _row(key="artist.contract.view", label="See contracts", bit=9),
    _row(key="artist.contract.manage", label="Issue and change contracts", bit=10),
    _row(key="artist.rider.view", label="See riders", bit=11),
    _row(key="artist.rider.edit", label="Change riders", bit=12),
    _row(key="artist.touring.view", label="See the artist's tours", bit=13),
    _row(key="artist.logistics.manage", label="Manage the logistics of the artist's tours", bit=14),
    _row(key="artist.relationship.view", label="See the history with promoters", bit=15),
    _row(key="artist.commission.view", label="See commission statements", bit=16),
    # Legacy keys.
    _row(
        key="market.contracts.read",
        label="See contracts",
        bit=17,
        alias_of="artist.contract.view",
        status=Status.DEPRECATED,
    ),
)
