"""Password hashing: Argon2id off the event loop, a bounded number at once."""

import asyncio
from typing import Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

#: OWASP Password Storage Cheat Sheet: Argon2id, 19 MiB, two passes, one lane.
_MEMORY_KIBIBYTES: Final = 19 * 1024
_PASSES: Final = 2
_LANES: Final = 1
#: Each takes one core and 19 MiB while it runs; more at once would starve requests that need no password.
_AT_ONCE_MAX: Final = 2


class PasswordHasher:
    """Argon2id with the parameters stored in each hash, so that they can be raised later."""

    def __init__(self) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=_PASSES, memory_cost=_MEMORY_KIBIBYTES, parallelism=_LANES, type=argon2.Type.ID
        )
        self._at_once = asyncio.Semaphore(_AT_ONCE_MAX)
        self._nobody = self._argon2.hash("the password of no account")

    async def hash(self, password: str) -> str:
        """The PHC string to store."""
        async with self._at_once:
            return await asyncio.to_thread(self._argon2.hash, password)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether the password is the one that was hashed. None (no such account) takes as long and is never true."""
        async with self._at_once:
            matched = await asyncio.to_thread(self._verify, password, password_hash or self._nobody)
        return matched and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with weaker parameters than today's."""
        return self._argon2.check_needs_rehash(password_hash)

    def _verify(self, password: str, password_hash: str) -> bool:
        try:
            return self._argon2.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False
