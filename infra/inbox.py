"""The inbox: which events a consumer has applied, written in the transaction of their effect, so that it happens once.

A service takes it in as it does the outbox: `add_inbox_table(Base.metadata)` and `create_inbox(op)`.
"""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Column, DateTime, MetaData, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

_METADATA: Final = MetaData()

#: Rows are kept: facts are kept for ever, and a replay of them must find what was applied.
inbox: Final = Table(
    "inbox",
    _METADATA,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid(), primary_key=True),
    Column("applied_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

_CREATE: Final = """
    create table inbox (
        consumer text not null, event_id uuid not null, applied_at timestamptz not null default now(),
        primary key (consumer, event_id)
    )
"""


def add_inbox_table(metadata: MetaData) -> None:
    """Make the inbox part of a service's metadata."""
    inbox.to_metadata(metadata)


def create_inbox(op: Any) -> None:
    """Create the inbox in an Alembic version; `op` is Alembic's. What this creates never changes."""
    op.execute(_CREATE)


def drop_inbox(op: Any) -> None:
    """Undo `create_inbox`."""
    op.execute("drop table inbox")


async def is_first(work: AsyncSession, *, consumer: str, event_id: UUID) -> bool:
    """Note that the consumer applies the event now; false if it already has. One that is just at it is waited for."""
    noted = await work.execute(
        insert(inbox).values(consumer=consumer, event_id=event_id).on_conflict_do_nothing().returning(inbox.c.event_id)
    )
    return noted.first() is not None
