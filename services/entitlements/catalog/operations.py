from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import PLATFORM_COMPANY_ID
from contracts.payload import Payload
from contracts.topics import TOPICS
from infra.outbox.writer import Lane, Revision, publish_state
from services.entitlements.catalog.rules import Catalog
from services.entitlements.catalog.tables import Addon, Module, Package, Price, read_catalog

TOPIC: Final = next(topic for topic in TOPICS if topic.name == "entitlements.catalog.v1")

#: By the kind a row's key begins with on the topic.
_TABLES: Final[dict[str, Any]] = {"module": Module, "package": Package, "addon": Addon, "price": Price}


async def catalog(work: AsyncSession) -> Catalog:
    """All that can be bought, and all that could be."""
    return await read_catalog(work)


async def publish_catalog(work: AsyncSession, *, now: datetime) -> int:
    """Publish every row whose newest version was not published yet; returns how many.

    Seeds are rows only, written where no event can be. Run at every start: what was published is not published again,
    and of two instances that start together one waits for the other's row locks and then finds nothing to do.
    """
    rows: list[tuple[str, Any]] = []
    for kind, table in _TABLES.items():
        unpublished = select(table).where(table.published_version < table.version)
        rows += [(kind, row) for row in await work.scalars(unpublished.order_by(table.key).with_for_update())]
    if rows:
        known = await read_catalog(work)
        for kind, row in rows:
            await _publish(work, row, known.row(kind, row.key), now=now)
    return len(rows)


async def republish(work: AsyncSession, key: str, *, now: datetime) -> Revision | None:
    """Publish a row again under its version, by `kind/key`; None for an unknown one."""
    kind, _, row_key = key.partition("/")
    if kind not in _TABLES:
        return None
    row = await work.get(_TABLES[kind], row_key, with_for_update=True, populate_existing=True)
    return None if row is None else await _publish(work, row, (await read_catalog(work)).row(kind, row_key), now=now)


async def _publish(work: AsyncSession, row: Any, payload: Payload, *, now: datetime) -> Revision:
    row.published_version = row.version
    return await publish_state(
        work,
        TOPIC,
        payload,
        company_id=PLATFORM_COMPANY_ID,
        version=row.version,
        occurred_at=now,
        lane=Lane.BULK,
    )
