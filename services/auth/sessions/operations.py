from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.events.auth import SessionsChanged
from contracts.identifiers import PLATFORM_COMPANY_ID, UserId, new_id
from contracts.topics import TOPICS
from infra.outbox.writer import Lane, Revision, State, next_version, publish_state, publish_states
from infra.passwords import PasswordHasher
from middleware.identity import Identity
from middleware.token import AccessToken, TokenIssuer
from services.auth.sessions import rules
from services.auth.sessions.tables import Session, TokenGeneration
from services.auth.users.rules import email_key
from services.auth.users.tables import Credential, User

TOPIC: Final = next(topic for topic in TOPICS if topic.name == "auth.sessions.v1")


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
    identity = await _identity(work, session)
    return SignedIn(access=await tokens.issue(identity, now), refresh_token=refresh_token)


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
        await _end(work, session, now)
        raise rules.RefreshTokenReusedError
    successor = rules.new_refresh_token()
    session.previous_refresh_hash = session.refresh_hash
    session.refresh_hash = rules.refresh_token_hash(successor)
    session.refreshed_at = now
    identity = await _identity(work, session)
    return SignedIn(access=await tokens.issue(identity, now), refresh_token=successor)


async def sign_out(work: AsyncSession, *, refresh_token: str, now: datetime) -> Revision | None:
    """End the session of a refresh token; an unknown or ended one is no error, the caller is signed out either way."""
    session = await _session_of(work, rules.refresh_token_hash(refresh_token))
    if session is None or session.ended_at is not None:
        return None
    return await _end(work, session, now)


async def live_sessions(work: AsyncSession, user_id: UserId, now: datetime) -> list[Session]:
    """A person's own sessions, the newest first."""
    rows = await work.scalars(
        select(Session)
        .where(Session.user_id == user_id, Session.ended_at.is_(None), Session.expires_at > now)
        .order_by(Session.created_at.desc())
    )
    return list(rows)


async def end_session(work: AsyncSession, user_id: UserId, session_id: UUID, now: datetime) -> Revision | None:
    """End one of a person's own sessions; None where it has ended. Raises SessionUnknownError, for another's too."""
    session = await work.get(Session, session_id, with_for_update=True, populate_existing=True)
    if session is None or session.user_id != user_id:
        raise rules.SessionUnknownError
    return None if session.ended_at is not None else await _end(work, session, now)


async def is_live(work: AsyncSession, identity: Identity) -> bool:
    """Whether the session an access token was issued for has not been ended."""
    live = select(Session.id).where(
        Session.id == identity.session_id, Session.user_id == identity.user_id, Session.ended_at.is_(None)
    )
    if await work.scalar(live) is None:
        return False
    return identity.generation >= await _generation(work, identity.user_id)


def is_key(key: str) -> bool:
    """Whether the text is the key of a person, there or not."""
    try:
        rules.parse_key(key)
    except ValueError:
        return False
    return True


async def keys(work: AsyncSession, *, after: str | None, limit: int) -> list[str]:
    """The keys of people something was told of, in order, from behind `after` on."""
    rows = select(TokenGeneration.user_id).order_by(TokenGeneration.user_id).limit(limit)
    if after is not None:
        rows = rows.where(TokenGeneration.user_id > rules.parse_key(after))
    return [str(user_id) for user_id in await work.scalars(rows)]


async def republish(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish again which tokens of a person are void; None where nothing was told yet."""
    if not is_key(key):
        return None
    told = await work.get(TokenGeneration, rules.parse_key(key), with_for_update=True, populate_existing=True)
    if told is None:
        return None
    told.version = next_version(told.version, above)
    return await _publish(work, told, rules.revocations(await _ended(work, told), told.generation, now), now, lane)


async def republish_all(work: AsyncSession, keys: Sequence[str], *, now: datetime, lane: Lane) -> None:
    """Publish again which tokens of these people are void, with as many queries for all of them as for one."""
    people = [rules.parse_key(key) for key in keys]
    locked = await work.scalars(
        select(TokenGeneration)
        .where(TokenGeneration.user_id.in_(people))
        .order_by(TokenGeneration.user_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    rows = list(locked)
    ended: dict[UUID, list[tuple[UUID, datetime]]] = defaultdict(list)
    for user_id, session_id, ended_at in await work.execute(
        select(Session.user_id, Session.id, Session.ended_at)
        .join(TokenGeneration, TokenGeneration.user_id == Session.user_id)
        .where(Session.user_id.in_(people), Session.ended_at >= TokenGeneration.since)
    ):
        if ended_at is not None:
            ended[user_id].append((session_id, ended_at))
    published = [_state(told, rules.revocations(ended[told.user_id], told.generation, now)) for told in rows]
    await publish_states(work, TOPIC, published, occurred_at=now, lane=lane)


async def withdraw(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish of a person nothing was told of which tokens are void: none, or all where there is no such person."""
    user_id, version = rules.parse_key(key), next_version(0, above)
    if await work.get(User, user_id) is None:
        nobody = TokenGeneration(user_id=user_id, version=version)
        return await _publish(work, nobody, rules.nothing_valid(), now, lane)
    await work.execute(
        insert(TokenGeneration)
        .values(
            user_id=user_id, generation=rules.FIRST_GENERATION, since=now - rules.TOKEN_LIFETIME_MAX, version=version
        )
        .on_conflict_do_nothing()
    )
    # Where somebody made it meanwhile, that is what it is.
    told = await work.get_one(TokenGeneration, user_id, with_for_update=True, populate_existing=True)
    told.version = max(told.version, version)
    return await _publish(work, told, rules.revocations(await _ended(work, told), told.generation, now), now, lane)


async def _end(work: AsyncSession, session: Session, now: datetime) -> Revision:
    """End a live session whose row is locked, and tell the readers of its tokens."""
    session.ended_at = now
    await work.flush()
    await work.execute(
        insert(TokenGeneration)
        .values(
            user_id=session.user_id, generation=rules.FIRST_GENERATION, since=now - rules.TOKEN_LIFETIME_MAX, version=1
        )
        .on_conflict_do_update(index_elements=[TokenGeneration.user_id], set_={"version": TokenGeneration.version + 1})
    )
    told = await work.get_one(TokenGeneration, session.user_id, populate_existing=True)
    revocations = rules.revocations(await _ended(work, told), told.generation, now)
    if revocations.generation != told.generation:
        told.generation, told.since = revocations.generation, now
    return await _publish(work, told, revocations, now)


async def _ended(work: AsyncSession, told: TokenGeneration) -> list[tuple[UUID, datetime]]:
    rows = await work.execute(
        select(Session.id, Session.ended_at).where(Session.user_id == told.user_id, Session.ended_at >= told.since)
    )
    return [(session_id, ended_at) for session_id, ended_at in rows if ended_at is not None]


async def _publish(
    work: AsyncSession,
    told: TokenGeneration,
    revocations: rules.Revocations,
    now: datetime,
    lane: Lane = Lane.INTERACTIVE,
) -> Revision:
    state = _state(told, revocations)
    return await publish_state(
        work,
        TOPIC,
        state.payload,
        company_id=state.company_id,
        version=state.version,
        occurred_at=now,
        actor_user_id=state.actor_user_id,
        lane=lane,
    )


def _state(told: TokenGeneration, revocations: rules.Revocations) -> State:
    user_id = UserId(told.user_id)
    payload = SessionsChanged(user_id=user_id, min_gen=revocations.generation, revoked=revocations.revoked)
    return State(payload, PLATFORM_COMPANY_ID, told.version, actor_user_id=user_id)


async def _generation(work: AsyncSession, user_id: UUID) -> int:
    told = select(TokenGeneration.generation).where(TokenGeneration.user_id == user_id)
    return await work.scalar(told) or rules.FIRST_GENERATION


async def _session_of(work: AsyncSession, presented_hash: bytes) -> Session | None:
    found: Session | None = await work.scalar(
        select(Session)
        .where(or_(Session.refresh_hash == presented_hash, Session.previous_refresh_hash == presented_hash))
        .with_for_update()
    )
    return found


async def _identity(work: AsyncSession, session: Session) -> Identity:
    generation = await _generation(work, session.user_id)
    return Identity(user_id=UserId(session.user_id), session_id=session.id, generation=generation)
