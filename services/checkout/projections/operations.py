from typing import Any

from sqlalchemy import tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import Envelope
from services.checkout.projections.tables import CatalogRow


async def apply_catalog_row(work: AsyncSession, changed: Envelope[Any]) -> None:
    """Copy a row of Core's catalog, unless what is here is as new by (epoch, version)."""
    kind, _, key = changed.aggregate_id.partition("/")
    row = insert(CatalogRow).values(
        kind=kind, key=key, epoch=changed.epoch, version=changed.version, data=changed.data.model_dump(mode="json")
    )
    given = row.excluded
    await work.execute(
        row.on_conflict_do_update(
            index_elements=[CatalogRow.kind, CatalogRow.key],
            set_={"epoch": given.epoch, "version": given.version, "data": given.data},
            where=tuple_(given.epoch, given.version) > tuple_(CatalogRow.epoch, CatalogRow.version),
        )
    )
