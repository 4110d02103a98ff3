"""Which tokens are believed. Each forged one differs from a good one in one thing."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.errors import DomainError
from contracts.identifiers import UserId
from middleware.identity import Identity
from middleware.token import SigningKey, TokenIssuer, TokenVerifier
from tests.harness.clock import FakeClock

KEY = Ed25519PrivateKey.generate()
OTHER_KEY = Ed25519PrivateKey.generate()
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
CLOCK = FakeClock()
NOW = int(CLOCK().timestamp())
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
    "padded": f"{HEAD}.{BODY}.{SIGNATURE}==",
    "nested": f"{encoded(GOOD.encode())}.{BODY}.{SIGNATURE}",
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
    "hmac with nothing": hmac_with(b""),
    "rsa": jwt.encode(CLAIMS, RSA_KEY, "RS256", headers={"kid": "key-1", "typ": "at+jwt"}),
    "ecdsa": jwt.encode(CLAIMS, EC_KEY, "ES256", headers={"kid": "key-1", "typ": "at+jwt"}),
    "kid unknown": token(header={"kid": "key-2"}),
    "kid missing": token(header={"kid": None}),
    "kid a number": token(header={"kid": 1}),
    "kid a path": token(header={"kid": "../../dev/null"}),
    "kid sql": token(header={"kid": "' or '1'='1"}),
    "kid empty": token(header={"kid": ""}),
    "typ missing": token(header={"typ": None}),
    "typ JWT": token(header={"typ": "JWT"}),
    "typ a list": token(header={"typ": ["at+jwt"]}),
    "jku": token(header={"jku": "https://example.com/keys"}),
    "jwk": token(header={"jwk": {"kty": "OKP"}}),
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
    "iat missing": token({"iat": None}),
    "iat text": token({"iat": "now"}),
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
