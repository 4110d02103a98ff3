"""When a webhook is believed: `t=…,v1=…`, HMAC-SHA256 over the time, a dot and the raw body, at most 300 s off."""

import hashlib
import hmac
import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from contracts.errors import DomainError, Kind
from contracts.problems import Fix, FixAction, FixBy

SIGNATURE_HEADER: Final = "Kisum-Webhook-Signature"
TOLERANCE: Final = timedelta(seconds=300)
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
#: Two while a secret is changed; more is nobody's need.
_SIGNATURES_MAX: Final = 5
#: Not `sign_in`: a provider has no account here.
_SEND_ANEW: Final = Fix(action=FixAction.RETRY, by=FixBy.CALLER)


class WebhookSignatureError(DomainError):
    """Not signed, or not by who knows the secret; which check failed helps only who tries to forge one."""

    kind = Kind.UNAUTHENTICATED
    code = "webhook_signature_invalid"
    title = "The webhook's signature is not valid"
    fix = _SEND_ANEW

    def __init__(self) -> None:
        super().__init__(f"Send {SIGNATURE_HEADER}: t=<unix seconds>,v1=<HMAC-SHA256 of t.body, hexadecimal>.")


class WebhookTimestampError(DomainError):
    """Signed, and too old or too far ahead: an intercepted webhook must not work for ever."""

    kind = Kind.UNAUTHENTICATED
    code = "webhook_timestamp_refused"
    title = "The webhook was signed too long ago, or in the future"
    fix = _SEND_ANEW


class WebhookMalformedError(DomainError):
    kind = Kind.INVALID
    code = "webhook_malformed"
    title = "The webhook cannot be read"


class PaymentUnknownError(DomainError):
    kind = Kind.NOT_FOUND
    code = "payment_unknown"
    title = "No checkout session has this payment"


class PaymentDiffersError(DomainError):
    """The amount or currency is not the session's. Nothing is carried out: somebody has to look."""

    kind = Kind.CONFLICT
    code = "payment_differs"
    title = "The payment is not what the session is for"


class Outcome(StrEnum):
    """What became of a webhook that was believed. All three are answered with 200: sending it again helps nobody."""

    PROCESSED = "processed"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The `v1` of a body, as hexadecimal digits."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def signature_header(secret: str, body: bytes, now: datetime) -> str:
    """The header a sender adds."""
    timestamp = int(now.timestamp())
    return f"t={timestamp},v1={signature(secret, timestamp, body)}"


def verify(header: str | None, body: bytes, *, secret: str, now: datetime) -> None:
    """Judge the raw bytes of a webhook, before anything of it is read.

    Schemes other than `v1` are passed over; of several `v1` one has to match.
    Raises WebhookSignatureError or WebhookTimestampError.
    """
    timestamp, presented = _parts(header)
    expected = signature(secret, timestamp, body).encode()
    # Every one is compared, in constant time each: how long it takes tells nothing.
    if not any([hmac.compare_digest(expected, each.encode()) for each in presented]):  # noqa: C419
        raise WebhookSignatureError
    age = now.timestamp() - timestamp
    if abs(age) > TOLERANCE.total_seconds():
        raise WebhookTimestampError(
            f"It was signed {abs(age):.0f} s {'ago' if age > 0 else 'ahead'}; the tolerance is"
            f" {TOLERANCE.total_seconds():.0f} s.",
            age_seconds=age,
        )


def _parts(header: str | None) -> tuple[int, list[str]]:
    pairs = [part.strip().partition("=")[::2] for part in (header or "").split(",")]
    timestamps = [value for name, value in pairs if name == "t"]
    signatures = [value for name, value in pairs if name == "v1"]
    if len(timestamps) != 1 or not _TIMESTAMP.fullmatch(timestamps[0]) or not 1 <= len(signatures) <= _SIGNATURES_MAX:
        raise WebhookSignatureError
    return int(timestamps[0]), signatures


def check_reported_at(created_at: datetime, now: datetime) -> None:
    """What is paid for begins at the provider's time, so one that is yet to come would be access nobody has paid.

    Raises WebhookMalformedError.
    """
    if created_at > now + TOLERANCE:
        raise WebhookMalformedError(
            f"/created_at: {created_at.isoformat()} is more than {TOLERANCE.total_seconds():.0f} s ahead.",
            created_at=created_at.isoformat(),
        )


def check_payment(*, due: tuple[int, str], paid: tuple[int, str]) -> None:
    """Compare (minor units, currency). Raises PaymentDiffersError."""
    if due != paid:
        raise PaymentDiffersError(
            f"Paid {paid[0]} {paid[1]} in minor units; the session is for {due[0]} {due[1]}.", due=due, paid=paid
        )
