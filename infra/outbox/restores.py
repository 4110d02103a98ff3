"""Restores as an operator asks for them: a row that the service's relay finds and carries out, and how far it is."""

from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from infra.outbox.tables import publisher, restores


@dataclass(frozen=True)
class Restore:
    """One restore.

    :ivar refusal: why the relay publishes nothing until it is begun; none where it saw nothing wrong.
    :ivar epoch: what all is published under; none before a relay has begun. Begun again by another it is a later one.
    :ivar republished: how many states were published again.
    :ivar withdrawn: how many keys of the log the database does not know, each published as giving nothing.
    """

    id: int
    refusal: str | None
    epoch_before: int | None
    epoch: int | None
    republished: int
    withdrawn: int
    is_finished: bool


async def ask_for_restore(work: AsyncSession) -> tuple[Restore, bool]:
    """Ask for all that this database says to be published as the truth; also whether that had been asked for before."""
    # Two who ask at once wait for each other.
    await work.execute(select(publisher.c.id).with_for_update())
    open_id = await work.scalar(
        select(restores.c.id).where(restores.c.finished_at.is_(None)).order_by(restores.c.id).limit(1)
    )
    if open_id is not None:
        return await restore_of(work, open_id), True
    made = await work.execute(insert(restores).returning(restores.c.id))
    return await restore_of(work, made.scalar_one()), False


async def restore_of(work: AsyncSession, restore_id: int) -> Restore:
    """One restore as it is now. Raises NoResultFound."""
    found = await work.execute(
        select(
            restores.c.id,
            select(publisher.c.refusal).scalar_subquery().label("refusal"),
            restores.c.epoch_before,
            restores.c.epoch,
            restores.c.republished,
            restores.c.withdrawn,
            restores.c.finished_at.is_not(None).label("is_finished"),
        ).where(restores.c.id == restore_id)
    )
    return Restore(**found.mappings().one())
