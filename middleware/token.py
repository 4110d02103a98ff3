"""Access tokens, both ends of them. Step one of the chain is `TokenVerifier.identify`.

EdDSA only, keys from a local map only, every claim required (RFC 8725, design §5 Identity).
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.errors import DomainError, Kind
from contracts.identifiers import UserId
from infra.clock import Clock
from middleware.identity import Identity

ALGORITHM: Final = "EdDSA"
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105  RFC 9068 §2.1: the media type of an access token, no secret
LIFETIME_SECONDS_MAX: Final = 600
_TOKEN_LENGTH_MAX: Final = 2048
#: RFC 7515 §3.1, base64url without padding; the library would let padding pass, and one token would have many forms.
_COMPACT_FORM: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_REQUIRED_CLAIMS: Final = ["iss", "aud", "sub", "sid", "gen", "iat", "exp"]
_REFUSED_HEADERS: Final = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_VERIFIED_FOR_SECONDS: Final = 60.0
#: At some 600 bytes each.
_VERIFIED_MAX: Final = 10_000


class TokenMissingError(DomainError):
    kind = Kind.UNAUTHENTICATED
    code = "token_missing"
    title = "Sign in first"


class TokenExpiredError(DomainError):
    kind = Kind.UNAUTHENTICATED
    code = "token_expired"
    title = "The access token has expired"


class TokenInvalidError(DomainError):
    """The token is not one of ours, or was changed; which check failed is for the log, not for the sender."""

    kind = Kind.UNAUTHENTICATED
    code = "token_invalid"
    title = "The access token is not valid"


class SessionEndedError(DomainError):
    kind = Kind.UNAUTHENTICATED
    code = "session_ended"
    title = "The session has ended"


@dataclass(frozen=True)
class SigningKey:
    """The private key tokens are signed with now, and the id verifiers know its public half by."""

    kid: str
    private_key: Ed25519PrivateKey = field(repr=False)


@dataclass(frozen=True)
class AccessToken:
    token: str = field(repr=False)
    lifetime: timedelta


class TokenIssuer:
    """Signs access tokens. Only Auth has one.

    :param signing_key: the key to sign with now.
    """

    def __init__(
        self, *, issuer: str, audience: str, lifetime: timedelta, signing_key: Callable[[], Awaitable[SigningKey]]
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime
        self._signing_key = signing_key

    async def issue(self, identity: Identity, now: datetime) -> AccessToken:
        """A token that says who this is until `now` plus the lifetime."""
        key = await self._signing_key()
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(identity.user_id),
            "sid": str(identity.session_id),
            "gen": identity.generation,
            "iat": now,
            "exp": now + self._lifetime,
        }
        token = jwt.encode(claims, key.private_key, ALGORITHM, headers={"kid": key.kid, "typ": TOKEN_TYPE})
        return AccessToken(token=token, lifetime=self._lifetime)


KeyLookup = Callable[[str], Awaitable[Ed25519PublicKey | None]]
SessionCheck = Callable[[Identity], Awaitable[bool]]


class TokenStates(Protocol):
    """What may change of a token that was verified before, all of it as of one instant."""

    @property
    def keys_generation(self) -> object: ...

    def signing_key(self) -> Ed25519PublicKey | None: ...

    def session_is_live(self) -> bool: ...


#: By the id of the token's key, and who it says is asking.
TokenStatesOf = Callable[[str, Identity], TokenStates]


def _one_generation() -> object:
    return None


@dataclass(frozen=True, slots=True)
class _Verified:
    """What the signature of a token was found to vouch for, and by which key."""

    kid: str
    key: Ed25519PublicKey
    identity: Identity
    expires_at: int
    verified_at: float


class TokenVerifier:
    """Turns an Authorization header into an Identity.

    That a key has signed a token is remembered for a minute, by the hash of the whole token. Everything that may change
    is asked each time: the token's end, its key, its session. What is refused is not remembered.

    :param key_of: the public key of a key id, or None where there is none to believe now.
    :param session_is_live: whether the token's session has not been ended since the token was signed.
    :param keys_generation: another value than before means that a key has changed, and nothing is remembered.
    :param token_states_of: all three of a token that was verified before; without it they are asked for one by one.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        key_of: KeyLookup,
        session_is_live: SessionCheck,
        clock: Clock,
        keys_generation: Callable[[], object] = _one_generation,
        token_states_of: TokenStatesOf | None = None,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._key_of = key_of
        self._session_is_live = session_is_live
        self._clock = clock
        self._keys_generation = keys_generation
        self._token_states_of = token_states_of
        self._generation = keys_generation()
        self._verified: dict[bytes, _Verified] = {}

    @property
    def remembered(self) -> int:
        """How many tokens were verified lately, for who watches memory."""
        return len(self._verified)

    async def identify(self, authorization: str | None) -> Identity:
        """Raises TokenMissingError, TokenExpiredError, TokenInvalidError or SessionEndedError."""
        token = _token_in(authorization)
        name = hashlib.sha256(token.encode()).digest()
        found = self._verified.pop(name, None)
        states = None
        if found is not None and self._token_states_of is not None:
            states = self._token_states_of(found.kid, found.identity)
        # Before any key is looked up: one that changes meanwhile makes the next request verify again.
        generation = self._keys_generation() if states is None else states.keys_generation
        if generation != self._generation:
            self._verified.clear()
            self._generation = generation
            found = None
        now = self._clock().timestamp()
        if found is None or not await self._holds(found, states, now):
            found, states = await self._verify(token, now), None
        if now >= found.expires_at:
            raise TokenExpiredError("Get a new one with the refresh token, or sign in again.")
        if generation == self._generation:
            while len(self._verified) >= _VERIFIED_MAX:
                del self._verified[next(iter(self._verified))]
            self._verified[name] = found
        identity = found.identity
        if states is None:
            await self.check_session(identity)
        elif not states.session_is_live():
            raise _ended()
        return identity

    async def check_session(self, identity: Identity) -> None:
        """Raises SessionEndedError."""
        if not await self._session_is_live(identity):
            raise _ended()

    async def _holds(self, found: _Verified, states: TokenStates | None, now: float) -> bool:
        # A clock that went back proves nothing.
        if not 0 <= now - found.verified_at < _VERIFIED_FOR_SECONDS:
            return False
        key = await self._key_of(found.kid) if states is None else states.signing_key()
        return key == found.key

    async def _verify(self, token: str, now: float) -> _Verified:
        if not _COMPACT_FORM.fullmatch(token):
            raise _invalid()
        try:
            header = jwt.get_unverified_header(token)
            self._refuse_header(header)
            key = await self._key_of(header["kid"])
            if key is None:
                raise _invalid()
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                # The times are judged by the service's own clock and without leeway.
                options={"require": _REQUIRED_CLAIMS, "strict_aud": True, "verify_exp": False, "verify_iat": False},
            )
            return _Verified(header["kid"], key, _identity(claims), _expiry(claims), now)
        except (jwt.InvalidTokenError, ValueError) as error:
            raise _invalid() from error

    @staticmethod
    def _refuse_header(header: dict[str, Any]) -> None:
        if str(header.get("typ", "")).lower() != TOKEN_TYPE:
            raise jwt.InvalidTokenError("typ")
        if not isinstance(header.get("kid"), str):
            raise jwt.InvalidTokenError("kid")
        if _REFUSED_HEADERS & header.keys():
            raise jwt.InvalidTokenError("header")


def _token_in(authorization: str | None) -> str:
    """Raises TokenMissingError, and TokenInvalidError where it is none or too long."""
    if authorization is None:
        raise TokenMissingError("Send the header Authorization: Bearer <access token>.")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenInvalidError("The Authorization header does not have the form: Bearer <access token>.")
    if len(token) > _TOKEN_LENGTH_MAX:
        raise _invalid()
    return token


def _invalid() -> TokenInvalidError:
    return TokenInvalidError("It is not an access token of this platform, or it was changed. Sign in again.")


def _ended() -> SessionEndedError:
    return SessionEndedError("It was signed out or revoked. Sign in again.")


def _expiry(claims: dict[str, Any]) -> int:
    expires_at, issued_at = claims["exp"], claims["iat"]
    if type(expires_at) is not int or type(issued_at) is not int or expires_at - issued_at > LIFETIME_SECONDS_MAX:
        raise jwt.InvalidTokenError("exp")
    return expires_at


def _identity(claims: dict[str, Any]) -> Identity:
    generation = claims["gen"]
    if type(generation) is not int:
        raise jwt.InvalidTokenError("gen")
    if not isinstance(claims["sub"], str) or not isinstance(claims["sid"], str):
        raise jwt.InvalidTokenError("sub")
    return Identity(user_id=UserId(UUID(claims["sub"])), session_id=UUID(claims["sid"]), generation=generation)
