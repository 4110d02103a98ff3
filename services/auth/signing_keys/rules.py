"""How long a signing key is used, and when its successor is made."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final

from contracts.errors import DomainError, Kind
from contracts.events.auth import SigningKeyChanged, SigningKeyStatus

#: A key signs for this long and is verified for as long as the last token it signed lives.
SIGNING_PERIOD: Final = timedelta(days=90)
VERIFICATION_OVERLAP: Final = timedelta(hours=1)
#: A key is known to every reader before it signs (design §5, Identity).
PUBLICATION_LEAD: Final = timedelta(seconds=300)
#: How long before the end of the last key its successor is made; a day without Kafka delays no sign-in.
SUCCESSOR_LEAD: Final = timedelta(days=2)
_KID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,120}")
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNSIGNED: Final = "A" * 86


class SigningKeyPendingError(DomainError):
    """The last key has served its time and its successor is not known to every reader yet."""

    kind = Kind.UNAVAILABLE
    code = "signing_key_pending"
    title = "Nobody can be signed in for a moment"

    def __init__(self, signs_from: datetime, now: datetime) -> None:
        super().__init__(f"A new signing key is used from {signs_from.isoformat()} on.")
        self.retry_after_seconds = ceil((signs_from - now).total_seconds())


@dataclass(frozen=True)
class Period:
    """When a key is used: it signs from `not_before` on and verifies until `not_after`, exclusive."""

    not_before: datetime
    not_after: datetime


def next_period(periods: Iterable[Period], now: datetime) -> Period | None:
    """The period of the key to be made now; None where there is time. The first key of all signs at once."""
    ends = [period.not_after - VERIFICATION_OVERLAP for period in periods]
    if not ends:
        signs_from = now
    elif now >= max(ends) - SUCCESSOR_LEAD:
        signs_from = max(*ends, now + PUBLICATION_LEAD)
    else:
        return None
    return Period(signs_from, signs_from + SIGNING_PERIOD + VERIFICATION_OVERLAP)


def is_key(key: str) -> bool:
    """Whether the text can be a key id."""
    return _KID.fullmatch(key) is not None


def revoked(kid: str, public_key: str) -> SigningKeyChanged:
    """What is published of a key there is not, for the root key to sign: no token is to be believed with it."""
    return SigningKeyChanged(
        kid=kid,
        algorithm="EdDSA",
        public_key=public_key,
        not_before=_NEVER,
        not_after=_NEVER + timedelta(seconds=1),
        status=SigningKeyStatus.REVOKED,
        signature=_UNSIGNED,
    )


def may_sign(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Whether tokens may be signed with a key now."""
    return not_before <= now < not_after - VERIFICATION_OVERLAP


def may_verify(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Whether tokens signed with a key are to be believed now."""
    return not_before <= now < not_after
