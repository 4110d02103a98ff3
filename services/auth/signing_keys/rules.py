"""How long a signing key is used."""

from datetime import datetime, timedelta
from typing import Final

#: A key signs for this long and is verified for as long as the last token it signed lives.
SIGNING_PERIOD: Final = timedelta(days=90)
VERIFICATION_OVERLAP: Final = timedelta(hours=1)


def may_sign(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Whether tokens may be signed with a key now."""
    return not_before <= now < not_after - VERIFICATION_OVERLAP


def may_verify(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Whether tokens signed with a key are to be believed now."""
    return not_before <= now < not_after
