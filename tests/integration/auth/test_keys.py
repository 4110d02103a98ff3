"""Which keys Auth itself believes: stored, signed by the root key, and within their time."""

import base64
from datetime import timedelta

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event

from contracts.identifiers import new_id
from infra.postgres.database import Database
from services.auth.signing_keys import rules
from services.auth.signing_keys.operations import KeyRing, _new_key
from services.auth.signing_keys.rules import SIGNING_PERIOD, VERIFICATION_OVERLAP
from tests.harness.clock import FakeClock
from tests.harness.services import ENCRYPTION_KEY, ROOT_KEY
from tests.integration.auth.published import NOW

ROOT = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(ROOT_KEY))


def key_ring(database: Database, clock: FakeClock) -> KeyRing:
    return KeyRing(database, root=ROOT, cipher=Fernet(ENCRYPTION_KEY), clock=clock)


async def test_both_keys_verify_while_one_follows_the_other_and_the_first_until_its_end(database: Database) -> None:
    clock = FakeClock(NOW)
    keys = key_ring(database, clock)
    first = (await keys.signing_key()).kid
    clock.now = NOW + SIGNING_PERIOD - timedelta(days=1)
    await keys.prepare()
    clock.now = NOW + SIGNING_PERIOD
    second = (await keys.signing_key()).kid
    assert first != second
    assert await keys.public_key(first)
    assert await keys.public_key(second)
    clock.now = NOW + SIGNING_PERIOD + VERIFICATION_OVERLAP
    assert await keys.public_key(first) is None
    assert await keys.public_key(second)


async def test_a_row_that_the_root_key_has_not_signed_is_no_key(database: Database) -> None:
    clock = FakeClock(NOW)
    keys = key_ring(database, clock)
    await keys.signing_key()
    period = rules.Period(NOW - timedelta(days=1), NOW + timedelta(days=1))
    forged = _new_key(Ed25519PrivateKey.generate(), Fernet(ENCRYPTION_KEY), period)
    own = _new_key(ROOT, Fernet(ENCRYPTION_KEY), period)
    changed = _new_key(ROOT, Fernet(ENCRYPTION_KEY), period)
    changed.not_after += timedelta(days=1)
    async with database.unit_of_work() as work:
        work.add_all([forged, own, changed])
    assert await keys.public_key(own.kid)
    assert await keys.public_key(forged.kid) is None
    assert await keys.public_key(changed.kid) is None


async def test_a_flood_of_invented_keys_costs_a_query_a_second(database: Database) -> None:
    clock = FakeClock(NOW)
    keys = key_ring(database, clock)
    known = (await keys.signing_key()).kid
    statements: list[str] = []
    engine = database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    for _ in range(3):
        for _ in range(100):
            assert await keys.public_key(str(new_id())) is None
            assert await keys.public_key(known)
        clock.advance(seconds=1)
    assert len(statements) == 3
