"""How what is published by the thousand never delays a revocation (design §4): in chunks, each after the one before."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from sqlalchemy import func, select

from contracts.errors import DomainError, Kind
from infra.outbox.tables import states
from infra.outbox.writer import Lane
from infra.postgres.database import UnitsOfWork

#: Rows of the bulk lane per transaction, and fewer than this are pending when the next begins. The relay takes no more
#: of them at once, so that a state somebody waits for is behind one chunk at most.
CHUNK_ROWS_MAX: Final = 200

_DRAIN_INTERVAL_SECONDS: Final = 0.2
_RETRY_INTERVAL_SECONDS: Final = 0.5

Cursor = TypeVar("Cursor")


async def in_chunks(
    database: UnitsOfWork,
    write: Callable[[Any, Cursor | None], Awaitable[Cursor | None]],
    *,
    room: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Call `write` until it is done, in a transaction each, as fast as the relay comes along.

    :param write: given a unit of work and what it answered last, publishes up to CHUNK_ROWS_MAX states in the bulk
        lane and answers where it came to; None at the end. While the database is away it is tried again.
    :param room: returns when there is room for a chunk; looks into the outbox itself unless given.
    """
    reached: Cursor | None = None
    while True:
        try:
            if room is None:
                await _wait_for_room(database)
            else:
                await room()
            async with database.unit_of_work() as work:
                came_to = await write(work, reached)
        except DomainError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            await asyncio.sleep(_RETRY_INTERVAL_SECONDS)
            continue
        if came_to is None:
            return
        reached = came_to


async def _wait_for_room(database: UnitsOfWork) -> None:
    pending = select(func.count()).select_from(states).where(states.c.lane == Lane.BULK, states.c.refused_at.is_(None))
    while True:
        async with database.unit_of_work() as work:
            count = await work.scalar(pending)
        if (count or 0) < CHUNK_ROWS_MAX:
            return
        await asyncio.sleep(_DRAIN_INTERVAL_SECONDS)
