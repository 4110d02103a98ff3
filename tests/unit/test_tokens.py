"""Which tokens are believed. Each forged one differs from a good one in one thing."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
import pytest_asyncio
import structlog.testing
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

import middleware.token
from access.revisions import RevisionWait
from chassis.application import build_app
from chassis.request import Caller
from chassis.routing import router
from contracts.errors import DomainError
from contracts.identifiers import UserId
from infra.postgres.database import Database
from middleware.chain import Chain
from middleware.guards import SignedIn, guard
from middleware.identity import Identity
from middleware.token import SigningKey, TokenIssuer, TokenVerifier
from services.auth.app import service as auth
from services.auth.judge import RowsJudge, versions_in
from services.auth.settings import AuthSettings
from tests.harness.clock import FakeClock
from tests.unit.chassis.test_application import SETTINGS

KEY = Ed25519PrivateKey.generate()
OTHER_KEY = Ed25519PrivateKey.generate()
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
CLOCK = FakeClock()
NOW = int(CLOCK().timestamp())
PUBLIC_JWK = json.dumps(
    {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": base64.urlsafe_b64encode(KEY.public_key().public_bytes_raw()).rstrip(b"=").decode(),
    }
)
PERSON = Identity(user_id=UserId(uuid4()), session_id=uuid4(), generation=3)
HEADER = {"kid": "key-1", "typ": "at+jwt", "alg": "EdDSA"}
CLAIMS = {
    "iss": "test",
    "aud": "kisum",
    "sub": str(PERSON.user_id),
    "sid": str(PERSON.session_id),
    "gen": 3,
    "iat": NOW,
    "exp": NOW + 600,
}


async def key_of(kid: str) -> Ed25519PublicKey | None:
    return KEY.public_key() if kid == "key-1" else None


async def is_live(identity: Identity) -> bool:
    return identity.generation != 0


def verifier() -> TokenVerifier:
    return TokenVerifier(issuer="test", audience="kisum", key_of=key_of, session_is_live=is_live, clock=CLOCK)


def token(claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> str:
    """A token with these changes; a change to None leaves the field out."""
    merged = {name: value for name, value in {**CLAIMS, **(claims or {})}.items() if value is not None}
    headers = {name: value for name, value in {**HEADER, **(header or {})}.items() if value is not None}
    return signed(headers, merged, KEY.sign)


def signed(header: dict[str, Any], claims: Any, sign: Callable[[bytes], bytes]) -> str:
    return signed_text(f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}", sign)


def signed_text(content: str, sign: Callable[[bytes], bytes] = KEY.sign) -> str:
    return f"{content}.{encoded(sign(content.encode()))}"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def hmac_with(secret: bytes) -> str:
    return signed({**HEADER, "alg": "HS256"}, CLAIMS, lambda content: hmac.digest(secret, content, hashlib.sha256))


GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
OWN_JWK = jwt.algorithms.OKPAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True)


def with_raw_header(header: bytes) -> str:
    """A token whose header is this text, signed with the good key."""
    return signed_text(f"{encoded(header)}.{BODY}")


FORGED = {
    "empty": "",
    "one part": HEAD,
    "two parts": f"{HEAD}.{BODY}",
    "four parts": f"{GOOD}.{SIGNATURE}",
    "no signature": f"{HEAD}.{BODY}.",
    "no header": f".{BODY}.{SIGNATURE}",
    "no body": f"{HEAD}..{SIGNATURE}",
    "not base64": "!!!.???.***",
    "null bytes": "\x00.\x00.\x00",
    "too long": GOOD + "A" * 3000,
    "too long and signed": token({"more": "A" * 2000}),
    "padded": f"{HEAD}.{BODY}.{SIGNATURE}==",
    "padded inside": f"{HEAD}=.{BODY}.{SIGNATURE}",
    "another alphabet of base64": f"{HEAD}.{BODY}.{'+/' + SIGNATURE[2:]}",
    "letters of another script": f"{HEAD}.{BODY}.{SIGNATURE[:-1]}ä",
    "nested": f"{encoded(GOOD.encode())}.{BODY}.{SIGNATURE}",
    "nested as claims": signed(HEADER, GOOD, KEY.sign),
    "cty JWT around a token": signed_text(f"{encoded(json.dumps({**HEADER, 'cty': 'JWT'}).encode())}.{BODY[:-4]}"),
    "header is a list": with_raw_header(b"[]"),
    "header is nested deeply": with_raw_header(b'{"alg":"EdDSA","kid":' + b"[" * 1100),
    "header with a number of a thousand digits": with_raw_header(b'{"alg":"EdDSA","kid":' + b"9" * 1000 + b"}"),
    "signature cut": GOOD[:-4],
    "signature of zeros": f"{HEAD}.{BODY}.{encoded(bytes(64))}",
    "body swapped": f"{HEAD}.{encoded(json.dumps({**CLAIMS, 'sub': str(uuid4())}).encode())}.{SIGNATURE}",
    "body is a list": signed(HEADER, [], KEY.sign),
    "body is text": signed(HEADER, "claims", KEY.sign),
    "body is no json": signed_text(f"{HEAD}.{encoded(b'no json')}"),
    "another key": signed(HEADER, CLAIMS, OTHER_KEY.sign),
    "alg none": signed({**HEADER, "alg": "none"}, CLAIMS, lambda _: b""),
    "alg None": signed({**HEADER, "alg": "None"}, CLAIMS, lambda _: b""),
    "alg missing": token(header={"alg": None}),
    "alg empty": token(header={"alg": ""}),
    "alg of other case": token(header={"alg": "eddsa"}),
    "alg a list": token(header={"alg": ["EdDSA"]}),
    "alg Ed448": token(header={"alg": "Ed448"}),
    "hmac with the public key": hmac_with(PUBLIC_PEM),
    "hmac with the raw public key": hmac_with(KEY.public_key().public_bytes_raw()),
    "hmac with the public key as a jwk": hmac_with(PUBLIC_JWK.encode()),
    "hmac with the public key in base64url": hmac_with(json.loads(PUBLIC_JWK)["x"].encode()),
    "hmac with nothing": hmac_with(b""),
    "hmac with the key id": hmac_with(b"key-1"),
    "rsa": jwt.encode(CLAIMS, RSA_KEY, "RS256", headers={"kid": "key-1", "typ": "at+jwt"}),
    "ecdsa": jwt.encode(CLAIMS, EC_KEY, "ES256", headers={"kid": "key-1", "typ": "at+jwt"}),
    "kid unknown": token(header={"kid": "key-2"}),
    "kid missing": token(header={"kid": None}),
    "kid a number": token(header={"kid": 1}),
    "kid a path": token(header={"kid": "../../dev/null"}),
    "kid sql": token(header={"kid": "' or '1'='1"}),
    "kid empty": token(header={"kid": ""}),
    "kid very long": token(header={"kid": "k" * 1000}),
    "kid not ascii": token(header={"kid": "schlüssel"}),
    "kid half a character": token(header={"kid": "\ud800"}),
    "kid a null byte": token(header={"kid": "key-1\x00"}),
    "kid with a line break": token(header={"kid": "key-1\n"}),
    "kid of other case": token(header={"kid": "KEY-1"}),
    "kid a list": token(header={"kid": ["key-1"]}),
    "typ missing": token(header={"typ": None}),
    "typ JWT": token(header={"typ": "JWT"}),
    "typ a list": token(header={"typ": ["at+jwt"]}),
    "typ of a refresh token": token(header={"typ": "rt+jwt"}),
    "jku": token(header={"jku": "https://example.com/keys"}),
    "jwk": token(header={"jwk": {"kty": "OKP"}}),
    "jwk of its own signer": signed({**HEADER, "jwk": OWN_JWK}, CLAIMS, OTHER_KEY.sign),
    "x5u": token(header={"x5u": "https://example.com/cert"}),
    "x5c": token(header={"x5c": ["cert"]}),
    "crit": token(header={"crit": ["exp"]}),
    "b64": token(header={"b64": False}),
    "zip": token(header={"zip": "DEF"}),
    "enc": token(header={"enc": "A256GCM"}),
    "iss missing": token({"iss": None}),
    "iss another": token({"iss": "elsewhere"}),
    "iss a list": token({"iss": ["test"]}),
    "aud missing": token({"aud": None}),
    "aud another": token({"aud": "other"}),
    "aud a list": token({"aud": ["kisum", "other"]}),
    "aud a list of the right one": token({"aud": ["kisum"]}),
    "aud empty": token({"aud": ""}),
    "sub missing": token({"sub": None}),
    "sub no id": token({"sub": "ada"}),
    "sub a number": token({"sub": 1}),
    "sid missing": token({"sid": None}),
    "sid no id": token({"sid": "session"}),
    "gen missing": token({"gen": None}),
    "gen text": token({"gen": "3"}),
    "gen true": token({"gen": True}),
    "gen a fraction": token({"gen": 3.0}),
    "exp missing": token({"exp": None}),
    "exp text": token({"exp": "tomorrow"}),
    "exp a fraction": token({"exp": NOW + 0.5}),
    "exp too far": token({"exp": NOW + 601}),
    "exp never": token({"exp": 10**18}),
    "exp huge": token({"exp": 10**400}),
    "exp infinite": signed_text(f"{HEAD}.{encoded(json.dumps({**CLAIMS, 'exp': float('inf')}).encode())}"),
    "exp true": token({"exp": True}),
    "iat missing": token({"iat": None}),
    "iat text": token({"iat": "now"}),
    "iat a fraction": token({"iat": NOW - 0.5}),
    "iat long ago": token({"iat": 0}),
    "nbf in the future": token({"nbf": 10**10}),
}


async def test_a_good_token_says_who_it_is() -> None:
    assert await verifier().identify(f"Bearer {GOOD}") == PERSON


async def test_what_the_issuer_signs_the_verifier_believes() -> None:
    async def signing_key() -> SigningKey:
        return SigningKey("key-1", KEY)

    issuer = TokenIssuer(issuer="test", audience="kisum", lifetime=timedelta(minutes=10), signing_key=signing_key)
    issued = await issuer.issue(PERSON, CLOCK())
    assert await verifier().identify(f"bearer {issued.token}") == PERSON


def test_there_are_at_least_sixty_ways_to_forge() -> None:
    assert len(FORGED) >= 60


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused_as_such(name: str) -> None:
    with pytest.raises(DomainError) as refused:
        await verifier().identify(f"Bearer {FORGED[name]}")
    assert refused.value.code == "token_invalid"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [(None, "token_missing"), ("", "token_invalid"), (GOOD, "token_invalid"), (f"Basic {GOOD}", "token_invalid")],
)
async def test_without_a_bearer_token_nobody_is_identified(authorization: str | None, code: str) -> None:
    with pytest.raises(DomainError) as refused:
        await verifier().identify(authorization)
    assert refused.value.code == code


async def test_an_expired_token_is_told_apart_from_a_forged_one() -> None:
    with pytest.raises(DomainError) as refused:
        await verifier().identify(f"Bearer {token({'iat': NOW - 600, 'exp': NOW})}")
    assert refused.value.code == "token_expired"


async def test_the_session_of_a_token_is_asked_for() -> None:
    with pytest.raises(DomainError) as refused:
        await verifier().identify(f"Bearer {token({'gen': 0})}")
    assert refused.value.code == "session_ended"


def test_an_identity_holds_no_more_than_three_facts() -> None:
    assert [type(value) for value in vars(PERSON).values()] == [UUID, UUID, int]


# What was verified is remembered for a while.


class CountingKey(Ed25519PublicKey):
    """A real key that counts the signatures it verifies."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self.key = key
        self.verified = 0

    def verify(self, signature: Any, data: Any) -> None:
        self.verified += 1
        self.key.verify(signature, data)

    def public_bytes_raw(self) -> bytes:
        return self.key.public_bytes_raw()

    def public_bytes(self, encoding: serialization.Encoding, format: serialization.PublicFormat) -> bytes:  # noqa: A002
        return self.key.public_bytes(encoding, format)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CountingKey) and self.key == other.key

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> "CountingKey":
        return self

    def __deepcopy__(self, _: Any) -> "CountingKey":
        return self


class Verifying:
    """A verifier whose key, sessions and clock a test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.key = CountingKey(KEY.public_key())
        self.believed: Ed25519PublicKey | None = self.key
        self.generation = 1
        self.is_live = True
        self.verifier = TokenVerifier(
            issuer="test",
            audience="kisum",
            key_of=self.key_of,
            session_is_live=self.session_is_live,
            clock=self.clock,
            keys_generation=lambda: self.generation,
        )

    async def key_of(self, kid: str) -> Ed25519PublicKey | None:
        return self.believed if kid == "key-1" else None

    async def session_is_live(self, _: Identity) -> bool:
        return self.is_live

    async def outcome(self, text: str = GOOD) -> str:
        try:
            await self.verifier.identify(f"Bearer {text}")
        except DomainError as refused:
            return refused.code
        return "identified"


async def test_a_token_is_verified_once_a_minute() -> None:
    verifying = Verifying()
    for seconds in (0, 30, 29):
        verifying.clock.advance(seconds=seconds)
        assert await verifying.outcome() == "identified"
    assert verifying.key.verified == 1
    verifying.clock.advance(seconds=1)
    assert await verifying.outcome() == "identified"
    assert verifying.key.verified == 2


async def test_a_clock_that_goes_back_prolongs_nothing() -> None:
    verifying = Verifying()
    await verifying.outcome()
    verifying.clock.advance(seconds=-1)
    await verifying.outcome()
    assert verifying.key.verified == 2


async def test_a_remembered_token_ends_when_it_ends() -> None:
    verifying = Verifying()
    verifying.clock.advance(seconds=590)
    assert await verifying.outcome() == "identified"
    verifying.clock.advance(seconds=10)
    assert await verifying.outcome() == "token_expired"
    assert verifying.verifier.remembered == 0


async def test_another_generation_of_keys_forgets_every_token() -> None:
    verifying = Verifying()
    assert [await verifying.outcome() for _ in range(3)] == ["identified"] * 3
    verifying.generation += 1
    assert await verifying.outcome() == "identified"
    assert verifying.key.verified == 2


async def test_a_generation_that_changes_while_a_token_is_verified_lets_nothing_be_remembered() -> None:
    verifying = Verifying()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow_key(_: str) -> Ed25519PublicKey | None:
        begun.set()
        await go_on.wait()
        return verifying.key

    verifier = TokenVerifier(
        issuer="test",
        audience="kisum",
        key_of=slow_key,
        session_is_live=verifying.session_is_live,
        clock=verifying.clock,
        keys_generation=lambda: verifying.generation,
    )
    first = asyncio.create_task(verifier.identify(f"Bearer {GOOD}"))
    await begun.wait()
    verifying.generation += 1
    with pytest.raises(DomainError):
        await verifier.identify("Bearer nonsense")
    go_on.set()
    await first
    assert verifier.remembered == 0


@pytest.mark.parametrize("kept", [None, OTHER_KEY.public_key()])
async def test_a_remembered_token_does_not_outlive_its_key(kept: Ed25519PublicKey | None) -> None:
    """Its time may be over, or its place in the cache in doubt, without any change of the keys."""
    verifying = Verifying()
    assert await verifying.outcome() == "identified"
    verifying.believed = kept
    assert await verifying.outcome() == "token_invalid"
    verifying.believed = verifying.key
    assert await verifying.outcome() == "identified"


async def test_a_session_that_ends_voids_a_remembered_token_at_once() -> None:
    verifying = Verifying()
    assert await verifying.outcome() == "identified"
    verifying.is_live = False
    assert await verifying.outcome() == "session_ended"


async def test_one_changed_letter_is_another_token() -> None:
    verifying = Verifying()
    assert await verifying.outcome() == "identified"
    other = f"{HEAD}.{BODY}.{'A' if SIGNATURE[0] != 'A' else 'B'}{SIGNATURE[1:]}"
    assert await verifying.outcome(other) == "token_invalid"


async def test_refused_tokens_are_not_remembered_and_push_nothing_out() -> None:
    verifying = Verifying()
    assert await verifying.outcome() == "identified"
    for number in range(middleware.token._VERIFIED_MAX + 1):
        assert await verifying.outcome(f"{GOOD}{number:06}") == "token_invalid"
    for forged in FORGED.values():
        assert await verifying.outcome(forged) in {"token_invalid", "token_expired"}
    assert verifying.verifier.remembered == 1
    before = verifying.key.verified
    assert await verifying.outcome() == "identified"
    assert verifying.key.verified == before


async def test_the_memory_is_bounded_and_keeps_who_comes_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("middleware.token._VERIFIED_MAX", 10)
    verifying = Verifying()
    for _ in range(30):
        assert await verifying.outcome() == "identified"
        assert await verifying.outcome(token({"sub": str(uuid4())})) == "identified"
    assert verifying.verifier.remembered == 10
    assert verifying.key.verified == 31


# Through an application.

_NOWHERE = Database("postgresql://nobody@127.0.0.1:1/none", application_name="test")
_ROUTES = router(prefix="/api/auth", tag="test")


@_ROUTES.get("/who")
@guard(SignedIn())
async def who(caller: Caller) -> UUID:
    return caller.user_id


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A service whose callers are verified as everywhere, with neither database nor Kafka."""
    chain = Chain(verifier=verifier(), judge=RowsJudge(_NOWHERE), revisions=RevisionWait(versions_in(_NOWHERE)))
    service = replace(auth, routers=(_ROUTES,), jobs=(), compose=lambda *_: {Chain: chain})
    app = build_app(service, AuthSettings(**SETTINGS))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield client


async def test_a_good_token_gets_through(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/auth/who", headers={"Authorization": f"Bearer {GOOD}"})
    assert (answer.status_code, answer.json()) == (200, str(PERSON.user_id))


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_a_401_and_no_error_in_the_log(client: httpx.AsyncClient, name: str) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await client.get("/api/auth/who", headers={b"Authorization": f"Bearer {FORGED[name]}".encode()})
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert {line["log_level"] for line in lines} == {"info"}


@pytest.mark.parametrize(
    ("named", "body"),
    [
        (
            "auth.sessions.v1:me",
            {
                "type": "urn:kisum:problem:revision_malformed",
                "title": "The request names a revision that is none",
                "status": 400,
                "detail": "A revision is topic:key:epoch:version, as an answer's Kisum-Revision has it; "
                "commas separate several.",
                "code": "revision_malformed",
            },
        ),
        (
            f"auth.sessions.v1:{uuid4()}:1:1",
            {
                "type": "urn:kisum:problem:revision_foreign",
                "title": "The request names a revision of somebody else",
                "status": 400,
                "detail": "A revision of sessions is one of the caller's own.",
                "code": "revision_foreign",
            },
        ),
    ],
)
async def test_a_revision_that_cannot_be_waited_for_is_a_400_that_names_the_rule(
    client: httpx.AsyncClient, named: str, body: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {GOOD}", "Kisum-At-Least": named}
    answer = await client.get("/api/auth/who", headers=headers)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {**answer.json(), "request_id": None} == {**body, "request_id": None}
