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
from contracts.identifiers import new_id
from infra.clock import Clock
from infra.postgres.database import Database
from middleware.token import SigningKey
from services.auth.signing_keys import rules
from services.auth.signing_keys.tables import SigningKeyRow

#: Taken by whoever makes a key, so that two instances that start together make one.
_KEY_LOCK: Final = 7_305_800_002
#: A flood of invented key ids costs at most one query in this time.
_UNKNOWN_KEY_PAUSE: Final = timedelta(seconds=1)


async def current_key(work: AsyncSession, *, root: Ed25519PrivateKey, cipher: Fernet, now: datetime) -> SigningKeyRow:
    """The key to sign with, made when there is none or the newest has served its time."""
    await work.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _KEY_LOCK})
    newest: SigningKeyRow | None = await work.scalar(
        select(SigningKeyRow).order_by(SigningKeyRow.not_after.desc()).limit(1)
    )
    if newest is not None and rules.may_sign(newest.not_before, newest.not_after, now):
        return newest
    made = _new_key(root, cipher, now)
    work.add(made)
    return made


def _new_key(root: Ed25519PrivateKey, cipher: Fernet, now: datetime) -> SigningKeyRow:
    private_key = Ed25519PrivateKey.generate()
    row = SigningKeyRow(
        kid=str(new_id()),
        public_key=private_key.public_key().public_bytes_raw(),
        private_key_encrypted=cipher.encrypt(private_key.private_bytes_raw()),
        root_signature=b"",
        not_before=now,
        not_after=now + rules.SIGNING_PERIOD + rules.VERIFICATION_OVERLAP,
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

    async def signing_key(self) -> SigningKey:
        """The key to sign with now."""
        now = self._clock()
        if self._current is None or not rules.may_sign(self._current.not_before, self._current.not_after, now):
            async with self._database.unit_of_work() as work:
                row = await current_key(work, root=self._root, cipher=self._cipher, now=now)
            private_key = Ed25519PrivateKey.from_private_bytes(self._cipher.decrypt(row.private_key_encrypted))
            self._current = _Held(SigningKey(row.kid, private_key), row.not_before, row.not_after)
        return self._current.signing_key

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
