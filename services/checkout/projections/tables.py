import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, CheckConstraint, Text, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from contracts.events.entitlements import AddonChanged, ModuleChanged, PackageChanged, PriceChanged
from contracts.payload import Payload
from services.checkout.database import Base
from services.checkout.projections.rules import Catalog

_KINDS: Final[Mapping[str, type[Payload]]] = {
    "module": ModuleChanged,
    "package": PackageChanged,
    "addon": AddonChanged,
    "price": PriceChanged,
}


class CatalogRow(Base):
    """A row of Core's catalog, as of the newest event about it."""

    __tablename__ = "catalog_rows"
    __table_args__ = (
        CheckConstraint("kind in ('module', 'package', 'addon', 'price')", name="kind_is_known"),
        CheckConstraint("epoch >= 1 and version >= 1", name="revision_is_positive"),
    )

    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)


async def read_catalog(work: AsyncSession) -> Catalog:
    """The whole catalog as its rules see it."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    for row in await work.scalars(select(CatalogRow)):
        # Through JSON text: that is the form these strict types accept tuples in.
        found[row.kind][row.key] = _KINDS[row.kind].model_validate_json(json.dumps(row.data))
    return Catalog(modules=found["module"], packages=found["package"], addons=found["addon"], prices=found["price"])
