from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Text,
    UniqueConstraint,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from contracts.events.auth import PermissionStatus
from services.auth.database import Base
from services.auth.permissions.rules import CatalogRow


class PermissionRow(Base):
    """A row of the catalog. Key and bit are for ever; label, status and alias may be edited (contracts.permissions)."""

    __tablename__ = "permissions"
    __table_args__ = (
        CheckConstraint("status in ('active', 'deprecated', 'removed')", name="status_is_known"),
        CheckConstraint("alias_of is null or status <> 'active'", name="active_is_no_alias"),
        CheckConstraint("alias_of <> key", name="alias_is_another"),
        CheckConstraint("bit >= 0", name="bit_not_negative"),
        CheckConstraint("key ~ '^[a-z][a-z0-9_-]*(\\.[a-z][a-z0-9_-]*){2,}$'", name="key_has_three_parts"),
        CheckConstraint("cardinality(scope_types) >= 1", name="is_bounded_by_scopes"),
        UniqueConstraint("module", "bit"),
        ForeignKeyConstraint(["module", "alias_of"], ["permissions.module", "permissions.key"]),
    )

    module: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    label: Mapped[str] = mapped_column(Text)
    bit: Mapped[int]
    scope_types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    capability: Mapped[str | None] = mapped_column(Text)
    alias_of: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    administration: Mapped[bool]


class PublishedModule(Base):
    """What was last published of a module's rows."""

    __tablename__ = "published_modules"
    __table_args__ = (
        CheckConstraint("version >= 1", name="version_is_positive"),
        CheckConstraint("jsonb_typeof(state) = 'object'", name="state_is_an_object"),
    )

    module: Mapped[str] = mapped_column(Text, primary_key=True)
    #: One more with every state that was published.
    version: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[dict[str, Any]] = mapped_column(JSONB)


async def read_catalog(work: AsyncSession, module: str) -> Mapping[str, CatalogRow]:
    """A module's rows by key; empty for a module the catalog does not have."""
    rows = await work.scalars(select(PermissionRow).where(PermissionRow.module == module))
    return {
        row.key: CatalogRow(row.key, PermissionStatus(row.status), row.alias_of, tuple(row.scope_types)) for row in rows
    }
