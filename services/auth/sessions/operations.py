from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import UserId, new_id
from infra.passwords import PasswordHasher
from middleware.identity import Identity
from middleware.token import AccessToken, TokenIssuer
from services.auth.sessions import rules
from services.auth.sessions.tables import Session
from services.auth.users.rules import email_key
from services.auth.users.tables import Credential, User

_FIRST_GENERATION = 1


@dataclass(frozen=True)
class SignedIn:
    """What a client holds after signing in or refreshing."""

    access: AccessToken
    refresh_token: str


async def sign_in(
    work: AsyncSession,
    passwords: PasswordHasher,
    tokens: TokenIssuer,
    *,
    email: str,
    password: str,
    refresh_lifetime: timedelta,
    now: datetime,
) -> SignedIn:
    """Raises SignInRefusedError or SignInPausedError."""
    credential = await work.scalar(
        select(Credential).join(User, User.id == Credential.user_id).where(User.email_key == email_key(email))
    )
    if credential is not None:
        rules.check_attempts(credential.failed_attempts, credential.last_failed_at, now)
    matched = await passwords.matches(password, credential.password_hash if credential else None)
    if credential is None:
        raise rules.SignInRefusedError
    # Locked only now: nobody waits for a lock while a password is hashed.
    await work.refresh(credential, with_for_update=True)
    rules.check_attempts(credential.failed_attempts, credential.last_failed_at, now)
    if not matched:
        credential.failed_attempts = rules.failures_after(credential.failed_attempts, credential.last_failed_at, now)
        credential.last_failed_at = now
        raise rules.SignInRefusedError
    credential.failed_attempts, credential.last_failed_at = 0, None
    if passwords.is_outdated(credential.password_hash):
        credential.password_hash = await passwords.hash(password)
    return await _open_session(work, tokens, credential.user_id, refresh_lifetime, now)


async def _open_session(
    work: AsyncSession, tokens: TokenIssuer, user_id: UUID, refresh_lifetime: timedelta, now: datetime
) -> SignedIn:
    refresh_token = rules.new_refresh_token()
    session = Session(
        id=new_id(),
        user_id=user_id,
        refresh_hash=rules.refresh_token_hash(refresh_token),
        created_at=now,
        refreshed_at=now,
        expires_at=now + refresh_lifetime,
    )
    work.add(session)
    return SignedIn(access=await tokens.issue(_identity(session), now), refresh_token=refresh_token)


async def refresh(work: AsyncSession, tokens: TokenIssuer, *, refresh_token: str, now: datetime) -> SignedIn:
    """New tokens for a refresh token. Raises RefreshRefusedError or RefreshTokenReusedError."""
    presented = rules.refresh_token_hash(refresh_token)
    session = await _session_of(work, presented)
    state = (
        rules.RefreshState(session.refresh_hash, session.expires_at, session.ended_at) if session is not None else None
    )
    outcome = rules.judge_refresh(state, presented, now)
    if session is None or outcome is rules.RefreshOutcome.REFUSED:
        raise rules.RefreshRefusedError
    if outcome is rules.RefreshOutcome.REUSED:
        session.ended_at = now
        raise rules.RefreshTokenReusedError
    successor = rules.new_refresh_token()
    session.previous_refresh_hash = session.refresh_hash
    session.refresh_hash = rules.refresh_token_hash(successor)
    session.refreshed_at = now
    return SignedIn(access=await tokens.issue(_identity(session), now), refresh_token=successor)


async def sign_out(work: AsyncSession, *, refresh_token: str, now: datetime) -> None:
    """End the session of a refresh token; an unknown or ended one is no error, the caller is signed out either way."""
    session = await _session_of(work, rules.refresh_token_hash(refresh_token))
    if session is not None and session.ended_at is None:
        session.ended_at = now


async def live_sessions(work: AsyncSession, user_id: UserId, now: datetime) -> list[Session]:
    """A person's own sessions, the newest first."""
    rows = await work.scalars(
        select(Session)
        .where(Session.user_id == user_id, Session.ended_at.is_(None), Session.expires_at > now)
        .order_by(Session.created_at.desc())
    )
    return list(rows)


async def end_session(work: AsyncSession, user_id: UserId, session_id: UUID, now: datetime) -> None:
    """End one of a person's own sessions. Raises SessionUnknownError, for another person's too."""
    session = await work.get(Session, session_id, with_for_update=True)
    if session is None or session.user_id != user_id:
        raise rules.SessionUnknownError
    if session.ended_at is None:
        session.ended_at = now


async def is_live(work: AsyncSession, identity: Identity) -> bool:
    """Whether the session an access token was issued for has not been ended."""
    ended = select(Session.id).where(
        Session.id == identity.session_id, Session.user_id == identity.user_id, Session.ended_at.is_(None)
    )
    return await work.scalar(ended) is not None


async def _session_of(work: AsyncSession, presented_hash: bytes) -> Session | None:
    found: Session | None = await work.scalar(
        select(Session)
        .where(or_(Session.refresh_hash == presented_hash, Session.previous_refresh_hash == presented_hash))
        .with_for_update()
    )
    return found


def _identity(session: Session) -> Identity:
    return Identity(user_id=UserId(session.user_id), session_id=session.id, generation=_FIRST_GENERATION)
