"""Identifiers: uuid7, opaque, never used again. Auth owns those of companies and users (design §3)."""

import sys
from typing import Final, NewType
from uuid import UUID

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7

CompanyId = NewType("CompanyId", UUID)
UserId = NewType("UserId", UUID)

#: The reserved company `platform`: its members are the platform admins (design §5), and it is the company of facts that
#: belong to no customer (catalog, signing keys, sessions, heartbeats). A uuid7 of the first millisecond: no clock makes
#: it again.
PLATFORM_COMPANY_ID: Final = CompanyId(UUID("00000000-0000-7000-8000-000000000001"))


def new_id() -> UUID:
    """A new uuid7: sortable by the millisecond it was made in, random beyond that."""
    return uuid7()
