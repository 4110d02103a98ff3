import json
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.events.auth import SigningKeyChanged, SigningKeyStatus

FIELDS: dict[str, Any] = {
    "kid": "k1",
    "algorithm": "EdDSA",
    "public_key": "A" * 43,
    "not_before": datetime(2026, 11, 21, tzinfo=UTC),
    "not_after": datetime(2027, 11, 21, tzinfo=UTC),
    "status": SigningKeyStatus.ACTIVE,
    "signature": "B" * 86,
}


def test_the_signature_is_over_everything_else() -> None:
    signed = SigningKeyChanged(**FIELDS).signed_bytes()
    assert json.loads(signed) == {
        "algorithm": "EdDSA",
        "kid": "k1",
        "not_after": "2027-11-21T00:00:00Z",
        "not_before": "2026-11-21T00:00:00Z",
        "public_key": "A" * 43,
        "status": "active",
    }
    assert SigningKeyChanged(**{**FIELDS, "signature": "C" * 86}).signed_bytes() == signed
    others: dict[str, Any] = {
        "kid": "k2",
        "public_key": "C" * 43,
        "not_before": FIELDS["not_after"],
        "not_after": FIELDS["not_before"],
        "status": SigningKeyStatus.REVOKED,
    }
    for name, value in others.items():
        assert SigningKeyChanged(**{**FIELDS, name: value}).signed_bytes() != signed


def test_a_signature_of_the_root_key_verifies() -> None:
    root = Ed25519PrivateKey.generate()
    signed = SigningKeyChanged(**FIELDS).signed_bytes()
    root.public_key().verify(root.sign(signed), signed)
