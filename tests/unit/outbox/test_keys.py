"""Owners and readers agree on what is a key: a record under any other blocks its partition until it is withdrawn."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.ingest import COMPANIES, MEMBERSHIPS, PERMISSIONS, SESSIONS, SIGNING_KEYS, STATE_TOPICS, subject_key
from infra.outbox.source import readable_key
from services.auth.memberships import operations as memberships
from services.auth.permissions import operations as permissions
from services.auth.sessions import operations as sessions
from services.auth.signing_keys.operations import SigningKeySource
from services.entitlements.companies import operations as companies

SOURCES: dict[str, Any] = {
    MEMBERSHIPS: memberships,
    PERMISSIONS: permissions,
    SESSIONS: sessions,
    SIGNING_KEYS: SigningKeySource(Ed25519PrivateKey.generate()),
    COMPANIES: companies,
}
ID = "01900000-0000-7000-8000-0000000000ab"
KEYS = [
    b"",
    b"/",
    b"finance",
    b"Finance",
    b"venue_marketplace",
    b"9lives",
    b"a" * 64,
    b"a" * 65,
    b"a" * 120,
    b"a" * 121,
    b"with space",
    b"nul\x00",
    b"\xff\xfe",
    "café".encode(),
    ID.encode(),
    ID.upper().encode(),
    ID.replace("-", "").encode(),
    f"{{{ID}}}".encode(),
    f"urn:uuid:{ID}".encode(),
    f" {ID}".encode(),
    f"{ID}\n".encode(),
    f"{ID}/{ID}".encode(),
    f"{ID}/{ID.upper()}".encode(),
    f"{ID}/{ID}/{ID}".encode(),
    f"{ID}/".encode(),
    f"/{ID}".encode(),
    f"{ID}//{ID}".encode(),
    f"{ID}:{ID}".encode(),
    str(int(ID.replace("-", ""), 16)).encode(),
]


def test_every_access_topic_has_a_source() -> None:
    assert SOURCES.keys() == STATE_TOPICS.keys()


@pytest.mark.parametrize("topic", SOURCES)
def test_owner_and_readers_take_the_same_bytes_for_a_key(topic: str) -> None:
    taken = {key for key in KEYS if readable_key(SOURCES[topic], key) is not None}
    assert taken == {key for key in KEYS if subject_key(topic, key) is not None}
    assert taken
    assert taken != set(KEYS)
