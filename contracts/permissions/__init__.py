"""The permission catalog (domain §2): one module of rows per Kisum module; keys and bits are append-only.

`PERMISSIONS[module][key]` is a row. The rows of vendor, touring and venue_marketplace arrive with their services.
"""

from collections.abc import Mapping
from typing import Final

from contracts.permissions import ai, artist, finance, promoter, venue
from contracts.permissions.row import (
    Permission,
    PermissionKeyMalformedError,
    PermissionKeyOfOtherModuleError,
    PermissionKeyTooShortError,
    Status,
    normalize_permission_key,
)

__all__ = [
    "PERMISSIONS",
    "Permission",
    "PermissionKeyMalformedError",
    "PermissionKeyOfOtherModuleError",
    "PermissionKeyTooShortError",
    "Status",
    "normalize_permission_key",
]

PERMISSIONS: Final[Mapping[str, Mapping[str, Permission]]] = {
    rows[0].module: {row.key: row for row in rows}
    for rows in (promoter.ROWS, venue.ROWS, artist.ROWS, finance.ROWS, ai.ROWS)
}
