from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response
from pydantic import Field, SecretStr

from chassis.request import Caller, Now, Work, component
from chassis.routing import REVISION_HEADER, RequestModel, ResponseModel, problem_statuses, router
from infra.outbox.writer import Revision
from infra.passwords import PasswordHasher
from middleware.guards import Public, SignedIn, guard
from middleware.token import TokenIssuer
from services.auth.manifest import MANIFEST
from services.auth.sessions import operations
from services.auth.settings import AuthSettings

sessions = router(prefix=MANIFEST.route_group, tag="sessions")

Issuer = Annotated[TokenIssuer, component(TokenIssuer)]


class SignIn(RequestModel):
    email: Annotated[str, Field(max_length=320)]
    password: SecretStr


class RefreshToken(RequestModel):
    refresh_token: Annotated[SecretStr, Field(max_length=200)]


class Tokens(ResponseModel):
    """RFC 6749 §5.1; `expires_in` is in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  RFC 6750
    expires_in: int
    refresh_token: str


class LiveSession(ResponseModel):
    id: UUID
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime


@sessions.post("/token", responses=problem_statuses(401, 429, 503))
@guard(Public("signing in is how a caller gets a token"))
async def sign_in(
    body: SignIn,
    work: Work,
    now: Now,
    issuer: Issuer,
    passwords: Annotated[PasswordHasher, component(PasswordHasher)],
    settings: Annotated[AuthSettings, component(AuthSettings)],
) -> Tokens:
    """Sign in with mail address and password."""
    signed_in = await operations.sign_in(
        work,
        passwords,
        issuer,
        email=body.email,
        password=body.password.get_secret_value(),
        refresh_lifetime=settings.refresh_token_lifetime,
        now=now,
    )
    return _tokens(signed_in)


@sessions.post("/refresh", responses=problem_statuses(401, 503))
@guard(Public("the refresh token is the proof; the access token has expired by then"))
async def refresh(body: RefreshToken, work: Work, now: Now, issuer: Issuer) -> Tokens:
    """Exchange a refresh token, once, for new tokens."""
    return _tokens(await operations.refresh(work, issuer, refresh_token=body.refresh_token.get_secret_value(), now=now))


@sessions.post("/logout", status_code=204, responses=problem_statuses(503))
@guard(Public("the refresh token is the proof; the access token may have expired"))
async def sign_out(body: RefreshToken, work: Work, now: Now, response: Response) -> None:
    """End the session of a refresh token."""
    _tell(response, await operations.sign_out(work, refresh_token=body.refresh_token.get_secret_value(), now=now))


@sessions.get("/sessions")
@guard(SignedIn())
async def list_sessions(caller: Caller, work: Work, now: Now) -> list[LiveSession]:
    """The caller's own live sessions."""
    return [LiveSession.model_validate(row) for row in await operations.live_sessions(work, caller.user_id, now)]


@sessions.delete("/sessions/{session_id}", status_code=204, responses=problem_statuses(404))
@guard(SignedIn())
async def end_session(session_id: UUID, caller: Caller, work: Work, now: Now, response: Response) -> None:
    """End one of the caller's own sessions."""
    _tell(response, await operations.end_session(work, caller.user_id, session_id, now))


def _tell(response: Response, revision: Revision | None) -> None:
    if revision is not None:
        response.headers[REVISION_HEADER] = str(revision)


def _tokens(signed_in: operations.SignedIn) -> Tokens:
    return Tokens(
        access_token=signed_in.access.token,
        expires_in=int(signed_in.access.lifetime.total_seconds()),
        refresh_token=signed_in.refresh_token,
    )
