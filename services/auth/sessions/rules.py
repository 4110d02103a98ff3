"""When a sign-in is refused, and what a refresh token is worth."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.events.auth import RevokedSession
from contracts.identifiers import UserId
from contracts.payload import INTEGER_MAX

FAILED_ATTEMPTS_MAX: Final = 10
FAILED_ATTEMPTS_WINDOW: Final = timedelta(minutes=15)
_REFRESH_TOKEN_BYTES: Final = 32
FIRST_GENERATION: Final = 1
#: How long an access token lives at most, whatever the setting is or was (design §5, Identity).
TOKEN_LIFETIME_MAX: Final = timedelta(minutes=10)
#: More than these are not told one by one, they would outgrow an event.
REVOKED_SESSIONS_MAX: Final = 500


class SignInRefusedError(DomainError):
    """Unknown address and wrong password are one answer: it must not tell who has an account."""

    kind = Kind.UNAUTHENTICATED
    code = "sign_in_refused"
    title = "The mail address or the password is wrong"
    remembered = True

    def __init__(self) -> None:
        super().__init__("Check both and try again.")


class SignInPausedError(DomainError):
    kind = Kind.TOO_MANY
    code = "sign_in_paused"
    title = "Too many failed sign-ins"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"Sign-in to this account is paused. Try again in {retry_after_seconds} s.")
        self.retry_after_seconds = retry_after_seconds


class RefreshRefusedError(DomainError):
    kind = Kind.UNAUTHENTICATED
    code = "refresh_refused"
    title = "The refresh token is not valid"

    def __init__(self) -> None:
        super().__init__("It was never issued, has expired, or its session has ended. Sign in again.")


class RefreshTokenReusedError(DomainError):
    """A refresh token works once. Its second use means that two parties hold it, so the session ends for both."""

    kind = Kind.UNAUTHENTICATED
    code = "refresh_token_reused"
    title = "The refresh token was used before"
    remembered = True

    def __init__(self) -> None:
        super().__init__("The session was ended for safety. Sign in again.")


class SessionUnknownError(DomainError):
    kind = Kind.NOT_FOUND
    code = "session_unknown"
    title = "There is no such session"

    def __init__(self) -> None:
        super().__init__("You have no session with this id.")


def check_attempts(failed_attempts: int, last_failed_at: datetime | None, now: datetime) -> None:
    """Raises SignInPausedError while the account has too many failures in the window."""
    if last_failed_at is None or failed_attempts < FAILED_ATTEMPTS_MAX:
        return
    remaining = last_failed_at + FAILED_ATTEMPTS_WINDOW - now
    if remaining > timedelta():
        raise SignInPausedError(int(remaining.total_seconds()) + 1)


def failures_after(failed_attempts: int, last_failed_at: datetime | None, now: datetime) -> int:
    """The count after one more failure; a window without any starts again at one."""
    fresh = last_failed_at is not None and now - last_failed_at < FAILED_ATTEMPTS_WINDOW
    return failed_attempts + 1 if fresh else 1


def new_refresh_token() -> str:
    """256 random bits: nothing to guess, nothing to read in it."""
    return secrets.token_urlsafe(_REFRESH_TOKEN_BYTES)


def refresh_token_hash(token: str) -> bytes:
    """What is stored. SHA-256 is enough for a random secret; a password needs more."""
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True)
class Revocations:
    """Which of a person's tokens are void: those below the generation, and those of these sessions."""

    generation: int
    revoked: tuple[RevokedSession, ...]


def revocations(ended: Iterable[tuple[UUID, datetime]], generation: int, now: datetime) -> Revocations:
    """What is published after a session was ended; `ended` are those of the present generation, each with its end.

    Of too many the generation tells instead: the tokens of the person's live sessions are void with it, and are
    refreshed.
    """
    revoked = tuple(
        RevokedSession(sid=session_id, until=ended_at + TOKEN_LIFETIME_MAX)
        for session_id, ended_at in sorted(ended)
        if now < ended_at + TOKEN_LIFETIME_MAX
    )
    if len(revoked) > REVOKED_SESSIONS_MAX:
        return Revocations(generation + 1, ())
    return Revocations(generation, revoked)


def nothing_valid() -> Revocations:
    """What is published of a person there is not: no token is of a generation that high."""
    return Revocations(INTEGER_MAX, ())


def parse_key(key: str) -> UserId:
    """The person of a key on the topic, in the one form it has. Raises ValueError."""
    user_id = UUID(key)
    if key != str(user_id):
        raise ValueError("not the one form of a key")
    return UserId(user_id)


class RefreshOutcome(Enum):
    ROTATE = "rotate"
    REUSED = "reused"
    REFUSED = "refused"


@dataclass(frozen=True)
class RefreshState:
    """What is known of the session a refresh token belongs to."""

    current_hash: bytes
    expires_at: datetime
    ended_at: datetime | None


def judge_refresh(state: RefreshState | None, presented_hash: bytes, now: datetime) -> RefreshOutcome:
    """What to do with a refresh token. `state` is None where no session ever issued it."""
    if state is None or state.ended_at is not None or now >= state.expires_at:
        return RefreshOutcome.REFUSED
    if not hmac.compare_digest(state.current_hash, presented_hash):
        return RefreshOutcome.REUSED
    return RefreshOutcome.ROTATE
