"""Permissions, signing keys and sessions as they are published; and what HTTP readers of the outbox rely on."""

import asyncio
import base64
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import func, select, text, update

from contracts.identifiers import PLATFORM_COMPANY_ID, UserId, new_id
from contracts.permissions import PERMISSIONS
from infra.outbox.tables import states
from infra.postgres.database import Database
from middleware.identity import Identity
from services.auth.memberships.operations import add_platform_admin, change_standing
from services.auth.memberships.rules import LastSuperadminError
from services.auth.permissions import operations as permission_operations
from services.auth.permissions.tables import PermissionRow
from services.auth.sessions import operations as session_operations
from services.auth.sessions import rules as session_rules
from services.auth.sessions.tables import Session
from services.auth.signing_keys import operations as key_operations
from services.auth.signing_keys.operations import KeyRing
from services.auth.signing_keys.rules import PUBLICATION_LEAD, SIGNING_PERIOD, SigningKeyPendingError
from services.auth.signing_keys.tables import SigningKeyRow
from services.auth.users.tables import User
from tests.harness.clock import FakeClock
from tests.harness.services import ENCRYPTION_KEY, ROOT_KEY
from tests.integration.auth.published import MEMBERSHIPS, NOW, new_company, new_person, pending

ROOT = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(ROOT_KEY))


def key_ring(database: Database, clock: FakeClock) -> KeyRing:
    return KeyRing(database, root=ROOT, cipher=Fernet(ENCRYPTION_KEY), clock=clock)


async def read(database: Database, topic_name: str) -> dict[str, Any]:
    async with database.unit_of_work() as work:
        return await pending(work, topic_name)


async def publish_permissions(database: Database) -> list[str]:
    async with database.unit_of_work() as work:
        return [revision.key for revision in await permission_operations.publish_changed(work, now=NOW)]


# Permissions.


async def test_the_catalog_is_published_once_and_a_module_again_when_a_row_changes(database: Database) -> None:
    published = await asyncio.gather(*(publish_permissions(database) for _ in range(3)))
    assert sorted(key for keys in published for key in keys) == sorted(PERMISSIONS)
    async with database.unit_of_work() as work:
        row = await work.get_one(PermissionRow, ("finance", "finance.rates.manage"))
        row.status = "removed"
    assert await publish_permissions(database) == ["finance"]
    assert await publish_permissions(database) == []
    envelope = (await read(database, "auth.permissions.v1"))["finance"]
    assert envelope.version == 2
    assert envelope.company_id == PLATFORM_COMPANY_ID
    found = {state.key: (str(state.status), state.alias_of) for state in envelope.data.permissions}
    assert found["finance.rates.manage"] == ("removed", None)
    assert found["finance.expense.view"] == ("deprecated", "finance.expenses.read")
    assert len(found) == len(PERMISSIONS["finance"])


async def test_a_module_is_published_again_under_its_version(database: Database) -> None:
    await publish_permissions(database)
    before = (await read(database, "auth.permissions.v1"))["venue"]
    async with database.unit_of_work() as work:
        await work.execute(states.delete())
        assert await permission_operations.republish(work, "venue", now=NOW) is not None
        assert await permission_operations.republish(work, "touring", now=NOW) is None
    after = (await read(database, "auth.permissions.v1"))["venue"]
    assert (after.version, after.data) == (before.version, before.data)


async def test_seeded_rows_are_those_of_the_contract(database: Database) -> None:
    async with database.unit_of_work() as work:
        rows = await permission_operations.permissions_of(work, None)
    assert {(row.module, row.key): (row.bit, tuple(row.scope_types), row.status) for row in rows} == {
        (module, key): (row.bit, row.scope_types, row.status.value)
        for module, permissions in PERMISSIONS.items()
        for key, row in permissions.items()
    }


# Signing keys.


async def test_the_first_key_signs_at_once_and_is_published_signed_by_the_root(database: Database) -> None:
    clock = FakeClock(NOW)
    kids = {(await key_ring(database, clock).signing_key()).kid for _ in range(2)}
    published = await read(database, "auth.signing-keys.v1")
    assert set(published) == kids
    (envelope,) = published.values()
    signature = base64.urlsafe_b64decode(envelope.data.signature + "==")
    ROOT.public_key().verify(signature, envelope.data.signed_bytes())


async def test_the_first_key_signs_at_once_on_a_clock_that_goes_on(database: Database) -> None:
    clock = FakeClock(NOW)

    def goes_on() -> datetime:
        clock.advance(milliseconds=1)
        return clock()

    await KeyRing(database, root=ROOT, cipher=Fernet(ENCRYPTION_KEY), clock=goes_on).signing_key()


async def test_a_successor_is_published_ahead_and_signs_from_the_end_of_the_last_key(database: Database) -> None:
    clock = FakeClock(NOW)
    keys = key_ring(database, clock)
    first = (await keys.signing_key()).kid
    clock.now = NOW + SIGNING_PERIOD - timedelta(days=1)
    assert (await keys.signing_key()).kid == first
    published = await read(database, "auth.signing-keys.v1")
    (successor,) = published.keys() - {first}
    assert published[successor].data.not_before == NOW + SIGNING_PERIOD
    clock.now = NOW + SIGNING_PERIOD
    assert (await keys.signing_key()).kid == successor


async def test_after_an_outage_nobody_signs_until_the_new_key_is_known(database: Database) -> None:
    clock = FakeClock(NOW)
    keys = key_ring(database, clock)
    await keys.signing_key()
    clock.now += SIGNING_PERIOD * 2
    with pytest.raises(SigningKeyPendingError):
        await keys.signing_key()
    assert len(await read(database, "auth.signing-keys.v1")) == 2
    clock.now += PUBLICATION_LEAD
    await keys.signing_key()
    assert len(await read(database, "auth.signing-keys.v1")) == 2


async def test_a_key_older_than_publishing_is_published_once(database: Database) -> None:
    keys = key_ring(database, FakeClock(NOW))
    kid = (await keys.signing_key()).kid
    async with database.unit_of_work() as work:
        await work.execute(text("update signing_keys set published = false"))
        await work.execute(states.delete())
    await keys.prepare()
    assert set(await read(database, "auth.signing-keys.v1")) == {kid}
    async with database.unit_of_work() as work:
        assert (await work.get_one(SigningKeyRow, kid)).published
        await work.execute(states.delete())
        assert await key_operations.republish(work, kid, now=NOW) is not None
        assert await key_operations.republish(work, "unknown", now=NOW) is None


# Sessions.


async def sessions_of_a_person(database: Database, count: int) -> tuple[UserId, list[Any]]:
    async with database.unit_of_work() as work:
        person = await new_person(work)
        ids = [new_id() for _ in range(count)]
        for number, session_id in enumerate(ids):
            work.add(
                Session(
                    id=session_id,
                    user_id=person,
                    refresh_hash=number.to_bytes(2, "big") + person.bytes + bytes(14),
                    created_at=NOW,
                    refreshed_at=NOW,
                    expires_at=NOW + timedelta(days=30),
                )
            )
    return person, ids


async def end(database: Database, person: UserId, session_id: Any, now: Any = NOW) -> Any:
    async with database.unit_of_work() as work:
        return await session_operations.end_session(work, person, session_id, now)


async def test_ended_sessions_are_told_until_their_tokens_have_ended(database: Database) -> None:
    person, (first, second, third) = await sessions_of_a_person(database, 3)
    await asyncio.gather(end(database, person, first), end(database, person, second))
    envelope = (await read(database, "auth.sessions.v1"))[str(person)]
    assert (envelope.version, envelope.data.min_gen) == (2, 1)
    assert {each.sid: each.until for each in envelope.data.revoked} == dict.fromkeys(
        (first, second), NOW + timedelta(minutes=10)
    )
    assert await end(database, person, first) is None
    later = NOW + timedelta(minutes=10)
    revision = await end(database, person, third, later)
    assert str(revision) == f"auth.sessions.v1:{person}:1:3"
    envelope = (await read(database, "auth.sessions.v1"))[str(person)]
    assert [each.sid for each in envelope.data.revoked] == [third]
    async with database.unit_of_work() as work:
        await work.execute(states.delete())
        again = await session_operations.republish(work, str(person), now=later)
        assert str(again) == str(revision)
        assert await session_operations.republish(work, str(new_id()), now=later) is None
    assert (await read(database, "auth.sessions.v1"))[str(person)].data == envelope.data


async def test_too_many_ended_sessions_void_a_generation(database: Database) -> None:
    person, ids = await sessions_of_a_person(database, session_rules.REVOKED_SESSIONS_MAX + 2)
    *earlier, last, after = ids
    async with database.unit_of_work() as work:
        await work.execute(update(Session).where(Session.id.in_(earlier)).values(ended_at=NOW))
    identity = Identity(user_id=person, session_id=after, generation=1)
    async with database.unit_of_work() as work:
        assert await session_operations.is_live(work, identity)
    await end(database, person, last, NOW + timedelta(seconds=1))
    data = (await read(database, "auth.sessions.v1"))[str(person)].data
    assert (data.min_gen, data.revoked) == (2, ())
    async with database.unit_of_work() as work:
        assert not await session_operations.is_live(work, identity)
        assert await session_operations.is_live(work, replace(identity, generation=2))
    await end(database, person, after, NOW + timedelta(seconds=2))
    data = (await read(database, "auth.sessions.v1"))[str(person)].data
    assert (data.min_gen, {each.sid for each in data.revoked}) == (2, {last, after})


# Companies.


async def test_a_company_is_published_with_its_founder(database: Database) -> None:
    async with database.unit_of_work() as work:
        company_id, founder = await new_company(work)
    envelope = (await read(database, MEMBERSHIPS))[f"{company_id}/{founder}"]
    assert (envelope.version, envelope.actor_user_id, envelope.company_id) == (1, founder, company_id)
    assert (envelope.data.status, envelope.data.superadmin, envelope.data.modules) == ("active", True, ())


async def test_platform_admins_are_published_and_the_last_one_stays(database: Database) -> None:
    async with database.unit_of_work() as work:
        person = await new_person(work)
        email = await work.scalar(select(User.email).where(User.id == person))
    for _ in range(2):
        async with database.unit_of_work() as work:
            await add_platform_admin(work, email=email or "", now=NOW)
    envelope = (await read(database, MEMBERSHIPS))[f"{PLATFORM_COMPANY_ID}/{person}"]
    assert (envelope.version, envelope.data.superadmin) == (1, True)
    with pytest.raises(LastSuperadminError):
        async with database.unit_of_work() as work:
            await change_standing(work, PLATFORM_COMPANY_ID, person, superadmin=False, actor=person, now=NOW)


async def test_no_event_holds_a_name_or_an_address(database: Database) -> None:
    async with database.unit_of_work() as work:
        await new_company(work)
        values = list(await work.scalars(select(states.c.value)))
        assert await work.scalar(select(func.count()).select_from(User)) == 1
    assert values
    assert not any(b"@example.com" in value or b"Person" in value for value in values)
