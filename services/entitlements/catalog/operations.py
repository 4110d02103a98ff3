from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import PLATFORM_COMPANY_ID
from contracts.payload import Payload
from contracts.topics import TOPICS
from infra.outbox.source import one_by_one
from infra.outbox.writer import Lane, Revision, next_version, publish_state
from services.entitlements.catalog import rules
from services.entitlements.catalog.rules import Catalog
from services.entitlements.catalog.tables import Addon, Module, Package, Price, WithdrawnKey, read_catalog

TOPIC: Final = next(topic for topic in TOPICS if topic.name == "entitlements.catalog.v1")

#: By the kind a row's key begins with on the topic.
_TABLES: Final[dict[str, Any]] = {"module": Module, "package": Package, "addon": Addon, "price": Price}


async def catalog(work: AsyncSession) -> Catalog:
    """All that can be bought, and all that could be."""
    return await read_catalog(work)


async def publish_catalog(work: AsyncSession, *, now: datetime, limit: int | None = None) -> int:
    """Publish rows whose newest version was not published yet, up to `limit`; returns how many.

    Seeds are rows only, written where no event can be. Run at every start: what was published is not published again,
    and of two instances that start together one waits for the other's row locks and then finds nothing to do.
    """
    rows: list[tuple[str, Any]] = []
    for kind, table in _TABLES.items():
        unpublished = select(table).where(table.published_version < table.version).order_by(table.key)
        if limit is not None:
            unpublished = unpublished.limit(limit - len(rows))
        rows += [(kind, row) for row in await work.scalars(unpublished.with_for_update())]
    if rows:
        known = await read_catalog(work)
        for kind, row in rows:
            if not row.published_version:
                withdrawn = await work.get(WithdrawnKey, f"{kind}/{row.key}")
                row.version = next_version(row.version, withdrawn.version if withdrawn else None)
            await _publish(work, row, known.row(kind, row.key), now=now)
    return len(rows)


def is_key(key: str) -> bool:
    """Whether the text is the key of a row, there or not."""
    try:
        rules.parse_key(key)
    except ValueError:
        return False
    return True


async def keys(work: AsyncSession, *, after: str | None, limit: int) -> list[str]:
    """The keys of rows, in order, from behind `after` on."""
    found = [f"{kind}/{key}" for kind, table in _TABLES.items() for key in await work.scalars(select(table.key))]
    return sorted(key for key in found if after is None or key > after)[:limit]


async def republish(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.BULK
) -> Revision | None:
    """Publish a row again, by `kind/key`; None for an unknown one."""
    if not is_key(key):
        return None
    kind, row_key = rules.parse_key(key)
    row = await work.get(_TABLES[kind], row_key, with_for_update=True, populate_existing=True)
    if row is None:
        return None
    row.version = next_version(row.version, above)
    return await _publish(work, row, (await read_catalog(work)).row(kind, row_key), now=now, lane=lane)


republish_all = one_by_one(republish)


async def withdraw(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.BULK
) -> Revision | None:
    """Publish a row there is not as retired. A row that is made of it later goes on from there."""
    row = insert(WithdrawnKey).values(key=key, version=next_version(0, above))
    version = await work.scalar(
        row.on_conflict_do_update(
            index_elements=[WithdrawnKey.key],
            set_={"version": func.greatest(WithdrawnKey.version + 1, row.excluded.version)},
        ).returning(WithdrawnKey.version)
    )
    return await publish_state(
        work,
        TOPIC,
        rules.retired(*rules.parse_key(key)),
        company_id=PLATFORM_COMPANY_ID,
        version=version or 1,
        occurred_at=now,
        lane=lane,
    )


async def _publish(
    work: AsyncSession, row: Any, payload: Payload, *, now: datetime, lane: Lane = Lane.BULK
) -> Revision:
    row.published_version = row.version
    return await publish_state(
        work,
        TOPIC,
        payload,
        company_id=PLATFORM_COMPANY_ID,
        version=row.version,
        occurred_at=now,
        lane=lane,
    )
