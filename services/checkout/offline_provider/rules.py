"""What a payment of the offline provider may become, and how often its report is sent."""

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from contracts.errors import DomainError, Kind

_REFERENCE_BYTES: Final = 24
_FIRST_PAUSE: Final = timedelta(seconds=1)
#: Enough for the longest pause; a larger factor would be no number of seconds any more.
_DOUBLINGS_MAX: Final = 12
_PAUSE_MAX: Final = timedelta(hours=1)
#: Stripe's: an installation that is down for a weekend misses no payment.
GIVE_UP_AFTER: Final = timedelta(days=3)


class PaymentStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class PaymentUnknownError(DomainError):
    kind = Kind.NOT_FOUND
    code = "payment_unknown"
    title = "There is no such payment"


class PaymentExpiredError(DomainError):
    kind = Kind.CONFLICT
    code = "payment_expired"
    title = "The payment can no longer be made"


class PaymentSettledError(DomainError):
    kind = Kind.CONFLICT
    code = "payment_settled"
    title = "The payment was settled otherwise"


def new_reference() -> str:
    """A payment's id, and the only proof its page asks for: 192 random bits."""
    return f"pay_{secrets.token_urlsafe(_REFERENCE_BYTES)}"


def settles(current: PaymentStatus, outcome: PaymentStatus, *, expires_at: datetime, now: datetime) -> bool:
    """Whether this outcome is news. Said again it is not. Raises PaymentSettledError or PaymentExpiredError."""
    if current is outcome:
        return False
    if current is not PaymentStatus.PENDING:
        raise PaymentSettledError(f"It has {current} already.", status=current)
    if now >= expires_at:
        raise PaymentExpiredError(f"It was open until {expires_at.isoformat()}. Begin a new checkout.")
    return True


def pause_after(attempts: int) -> timedelta:
    """How long to wait after so many attempts: from a second, doubling, to an hour."""
    doublings = min(attempts - 1, _DOUBLINGS_MAX)
    return min(_FIRST_PAUSE * (1 << doublings), _PAUSE_MAX)
