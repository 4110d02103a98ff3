import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.events.auth import SigningKeyChanged, SigningKeyStatus
from contracts.identifiers import PLATFORM_COMPANY_ID, new_id
from contracts.topics import TOPICS
from infra.clock import Clock
from infra.outbox.source import one_by_one
from infra.outbox.writer import Lane, Revision, next_version, publish_state
from infra.postgres.database import Database
from middleware.token import SigningKey
from services.auth.signing_keys import rules
from services.auth.signing_keys.tables import SigningKeyRow

TOPIC: Final = next(topic for topic in TOPICS if topic.name == "auth.signing-keys.v1")

#: Taken by whoever makes a key, so that two instances that start together make one.
_KEY_LOCK: Final = 7_305_800_003
#: A flood of invented key ids costs at most one query in this time.
_UNKNOWN_KEY_PAUSE: Final = timedelta(seconds=1)
_KEYS_READ_INTERVAL: Final = timedelta(hours=1)


async def prepare_keys(
    work: AsyncSession, *, root: Ed25519PrivateKey, cipher: Fernet, now: datetime
) -> list[SigningKeyRow]:
    """Make and publish the first key, or the next ahead of its time, where it is due. Every key that is used still."""
    await work.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _KEY_LOCK})
    keys = list(await work.scalars(select(SigningKeyRow).order_by(SigningKeyRow.not_before)))
    due = rules.next_period([rules.Period(key.not_before, key.not_after) for key in keys], now)
    if due is not None:
        made = _new_key(root, cipher, due)
        work.add(made)
        keys.append(made)
        await _publish(work, made, now)
    used = [key for key in keys if now < key.not_after]
    for key in used:
        if not key.published:
            key.published = True
            await _publish(work, key, now)
    return used


async def republish(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish a key again; None for an unknown one."""
    if not rules.is_key(key):
        return None
    row = await work.get(SigningKeyRow, key, with_for_update=True, populate_existing=True)
    if row is None:
        return None
    row.version = next_version(row.version, above)
    return await _publish(work, row, now, lane)


class SigningKeySource:
    """The signing keys as a relay asks for them. Also of a key there is not, only what the root key signed is read."""

    republish_all = staticmethod(one_by_one(republish))

    def __init__(self, root: Ed25519PrivateKey) -> None:
        self._root = root

    def is_key(self, key: str) -> bool:
        """Whether the text can be a key id."""
        return rules.is_key(key)

    async def keys(self, work: AsyncSession, *, after: str | None, limit: int) -> list[str]:
        """The key ids, in order, from behind `after` on."""
        rows = select(SigningKeyRow.kid).order_by(SigningKeyRow.kid).limit(limit)
        return list(await work.scalars(rows if after is None else rows.where(SigningKeyRow.kid > after)))

    async def republish(
        self, work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        """Publish a key again; None for an unknown one."""
        return await republish(work, key, now=now, above=above, lane=lane)

    async def withdraw(
        self, work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        """Publish a key there is not as revoked. Its id is never made again, so nothing has to go on from there."""
        unsigned = rules.revoked(key, _base64url(self._root.public_key().public_bytes_raw()))
        signature = _base64url(self._root.sign(unsigned.signed_bytes()))
        return await publish_state(
            work,
            TOPIC,
            unsigned.model_copy(update={"signature": signature}),
            company_id=PLATFORM_COMPANY_ID,
            version=next_version(0, above),
            occurred_at=now,
            lane=lane,
        )


async def _publish(work: AsyncSession, row: SigningKeyRow, now: datetime, lane: Lane = Lane.INTERACTIVE) -> Revision:
    return await publish_state(
        work, TOPIC, published(row), company_id=PLATFORM_COMPANY_ID, version=row.version, occurred_at=now, lane=lane
    )


def _new_key(root: Ed25519PrivateKey, cipher: Fernet, period: rules.Period) -> SigningKeyRow:
    private_key = Ed25519PrivateKey.generate()
    row = SigningKeyRow(
        kid=str(new_id()),
        public_key=private_key.public_key().public_bytes_raw(),
        private_key_encrypted=cipher.encrypt(private_key.private_bytes_raw()),
        root_signature=b"",
        not_before=period.not_before,
        not_after=period.not_after,
        version=1,
        published=True,
    )
    row.root_signature = root.sign(published(row).signed_bytes())
    return row


def published(row: SigningKeyRow) -> SigningKeyChanged:
    """A stored key as the event that tells of it; the root key signs what it says."""
    return SigningKeyChanged(
        kid=row.kid,
        algorithm="EdDSA",
        public_key=_base64url(row.public_key),
        not_before=row.not_before,
        not_after=row.not_after,
        status=SigningKeyStatus.ACTIVE,
        signature=_base64url(row.root_signature or bytes(64)),
    )


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def is_signed_by(root: Ed25519PublicKey, row: SigningKeyRow) -> bool:
    """Whether the root key vouches for a stored key: a row written by anybody else is no key."""
    try:
        root.verify(row.root_signature, published(row).signed_bytes())
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True)
class _Held:
    """A key in memory; judged against the clock at every use."""

    signing_key: SigningKey
    not_before: datetime
    not_after: datetime
    #: When the stored keys are looked at again: a successor has to be made ahead of its time.
    read_again_at: datetime

    def may_sign(self, now: datetime) -> bool:
        return now < self.read_again_at and rules.may_sign(self.not_before, self.not_after, now)


class KeyRing:
    """Auth's signing keys, read once and kept. Its reads and the making of a key are transactions of its own.

    They must not be part of a request's: a refused sign-in rolls back, and a key that was handed out must not.
    """

    def __init__(self, database: Database, *, root: Ed25519PrivateKey, cipher: Fernet, clock: Clock) -> None:
        self._database = database
        self._root = root
        self._cipher = cipher
        self._clock = clock
        self._current: _Held | None = None
        self._public: dict[str, tuple[Ed25519PublicKey, datetime, datetime]] = {}
        self._unknown_until: datetime | None = None

    @property
    def source(self) -> SigningKeySource:
        """The stored keys, as a relay asks for them."""
        return SigningKeySource(self._root)

    async def signing_key(self) -> SigningKey:
        """The key to sign with now. Raises SigningKeyPendingError."""
        if self._current is None or not self._current.may_sign(self._clock()):
            keys = await self.prepare()
            # Not the time from before: a key that was made just now signs from now on.
            self._current = self._held(keys, self._clock())
        return self._current.signing_key

    async def prepare(self) -> list[SigningKeyRow]:
        """Make and publish the next key where it is due."""
        async with self._database.unit_of_work() as work:
            return await prepare_keys(work, root=self._root, cipher=self._cipher, now=self._clock())

    def _held(self, keys: list[SigningKeyRow], now: datetime) -> _Held:
        signing = [key for key in keys if rules.may_sign(key.not_before, key.not_after, now)]
        if not signing:
            raise rules.SigningKeyPendingError(min(key.not_before for key in keys if now < key.not_before), now)
        row = signing[-1]
        private_key = Ed25519PrivateKey.from_private_bytes(self._cipher.decrypt(row.private_key_encrypted))
        return _Held(SigningKey(row.kid, private_key), row.not_before, row.not_after, now + _KEYS_READ_INTERVAL)

    async def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """The key a token with this key id is verified with, or None where there is none to believe now."""
        now = self._clock()
        if kid not in self._public and not self._is_paused(now):
            await self._read(now)
        if kid not in self._public:
            return None
        key, not_before, not_after = self._public[kid]
        return key if rules.may_verify(not_before, not_after, now) else None

    def _is_paused(self, now: datetime) -> bool:
        return self._unknown_until is not None and now < self._unknown_until

    async def _read(self, now: datetime) -> None:
        async with self._database.unit_of_work() as work:
            rows = list(await work.scalars(select(SigningKeyRow).where(SigningKeyRow.not_after > now)))
        root = self._root.public_key()
        self._public = {
            row.kid: (Ed25519PublicKey.from_public_bytes(row.public_key), row.not_before, row.not_after)
            for row in rows
            if is_signed_by(root, row)
        }
        self._unknown_until = now + _UNKNOWN_KEY_PAUSE
