from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Text,
    UniqueConstraint,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from contracts.events.entitlements import AddonChanged, CatalogStatus, ModuleChanged, PackageChanged, PriceChanged
from services.entitlements.catalog.rules import Catalog
from services.entitlements.database import Base


def _of_every_row() -> tuple[CheckConstraint, ...]:
    return (
        CheckConstraint("status in ('active', 'retired')", name="status_is_known"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        CheckConstraint("published_version between 0 and version", name="published_version_is_not_ahead"),
    )


class _Published:
    """A row behind a state topic: retired when it is sold no more, never deleted, and its key never changes."""

    label: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, default="active")
    #: One more with every write of this row.
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    #: The version last handed to the outbox; seeded rows start at 0 and are published when the service starts.
    published_version: Mapped[int] = mapped_column(BigInteger, default=0)


class Module(_Published, Base):
    """A capability boundary of the product. It carries no price and no package name."""

    __tablename__ = "modules"
    __table_args__ = (
        CheckConstraint("type in ('base', 'addon')", name="type_is_known"),
        UniqueConstraint("key", "type"),
        *_of_every_row(),
    )

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    type: Mapped[str] = mapped_column(Text)


class CompatibleBase(Base):
    """An add-on module may be layered on a base: one cell of the matrix of domain §3, no. 25."""

    __tablename__ = "compatible_bases"
    __table_args__ = (
        CheckConstraint("addon_type = 'addon' and base_type = 'base'", name="layers_addon_on_base"),
        ForeignKeyConstraint(["addon_key", "addon_type"], ["modules.key", "modules.type"]),
        ForeignKeyConstraint(["base_key", "base_type"], ["modules.key", "modules.type"]),
    )

    addon_key: Mapped[str] = mapped_column(Text, primary_key=True)
    base_key: Mapped[str] = mapped_column(Text, primary_key=True)
    addon_type: Mapped[str] = mapped_column(Text, default="addon")
    base_type: Mapped[str] = mapped_column(Text, default="base")


class Package(_Published, Base):
    """What is bought. `trial_days` of 0 is no trial."""

    __tablename__ = "packages"
    __table_args__ = (CheckConstraint("trial_days between 0 and 90", name="trial_days_in_range"), *_of_every_row())

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    trial_days: Mapped[int]


class PackageModule(Base):
    """A package turns a module on. A package has at most one base; two would be two personas for one price."""

    __tablename__ = "package_modules"
    __table_args__ = (
        ForeignKeyConstraint(["module_key", "module_type"], ["modules.key", "modules.type"]),
        Index("package_modules_one_base_index", "package_key", unique=True, postgresql_where="module_type = 'base'"),
    )

    package_key: Mapped[str] = mapped_column(ForeignKey("packages.key"), primary_key=True)
    module_key: Mapped[str] = mapped_column(Text, primary_key=True)
    module_type: Mapped[str] = mapped_column(Text)


class Addon(_Published, Base):
    """A commercial add-on: a capability on top of modules the company has."""

    __tablename__ = "addons"
    __table_args__ = _of_every_row()

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    capability: Mapped[str] = mapped_column(Text, unique=True)


class AddonModule(Base):
    """A module an add-on attaches to; one of them is enough."""

    __tablename__ = "addon_modules"

    addon_key: Mapped[str] = mapped_column(ForeignKey("addons.key"), primary_key=True)
    module_key: Mapped[str] = mapped_column(ForeignKey("modules.key"), primary_key=True)


class Price(Base):
    """What an item costs per interval, in minor units; one active price per item, currency and interval."""

    __tablename__ = "prices"
    __table_args__ = (
        CheckConstraint("num_nonnulls(package_key, addon_key) = 1", name="is_of_one_item"),
        CheckConstraint("amount_minor >= 0", name="amount_is_not_negative"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_iso_4217"),
        CheckConstraint("interval in ('month', 'year')", name="interval_is_known"),
        *_of_every_row(),
        Index(
            "prices_one_active_index",
            "package_key",
            "addon_key",
            "currency",
            "interval",
            unique=True,
            postgresql_where="status = 'active'",
            postgresql_nulls_not_distinct=True,
        ),
    )

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    package_key: Mapped[str | None] = mapped_column(ForeignKey("packages.key"), default=None)
    addon_key: Mapped[str | None] = mapped_column(ForeignKey("addons.key"), default=None)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)
    interval: Mapped[str] = mapped_column(Text)
    #: True until a platform admin has set a real price.
    placeholder: Mapped[bool]
    status: Mapped[str] = mapped_column(Text, default="active")
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    published_version: Mapped[int] = mapped_column(BigInteger, default=0)


class WithdrawnKey(Base):
    """A key of the topic, `kind/key`, that was published as retired without a row. A row of it goes on from there."""

    __tablename__ = "withdrawn_catalog_keys"
    __table_args__ = (CheckConstraint("version >= 1", name="version_is_positive"),)

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)


async def read_catalog(work: AsyncSession) -> Catalog:
    """The whole catalog as its rules see it; some thirty rows."""
    bases = await _pairs(work, CompatibleBase.addon_key, CompatibleBase.base_key)
    attached = await _pairs(work, AddonModule.addon_key, AddonModule.module_key)
    base_of: dict[str, str] = {}
    addons_of: dict[str, list[str]] = defaultdict(list)
    for row in await work.scalars(select(PackageModule).order_by(PackageModule.module_key)):
        if row.module_type == "base":
            base_of[row.package_key] = row.module_key
        else:
            addons_of[row.package_key].append(row.module_key)
    return Catalog(
        modules={
            row.key: ModuleChanged(
                key=row.key,
                type="base" if row.type == "base" else "addon",
                label=row.label,
                compatible_bases=tuple(bases[row.key]),
                status=CatalogStatus(row.status),
            )
            for row in await work.scalars(select(Module))
        },
        packages={
            row.key: PackageChanged(
                key=row.key,
                label=row.label,
                base_module=base_of.get(row.key),
                addon_modules=tuple(addons_of[row.key]),
                trial_days=row.trial_days,
                status=CatalogStatus(row.status),
            )
            for row in await work.scalars(select(Package))
        },
        addons={
            row.key: AddonChanged(
                key=row.key,
                label=row.label,
                capability=row.capability,
                modules=tuple(attached[row.key]),
                status=CatalogStatus(row.status),
            )
            for row in await work.scalars(select(Addon))
        },
        prices={row.key: _price(row) for row in await work.scalars(select(Price))},
    )


def _price(row: Price) -> PriceChanged:
    return PriceChanged(
        key=row.key,
        item_kind="package" if row.package_key is not None else "addon",
        item_key=row.package_key or row.addon_key or "",
        amount_minor=row.amount_minor,
        currency=row.currency,
        interval="month" if row.interval == "month" else "year",
        placeholder=row.placeholder,
        status=CatalogStatus(row.status),
    )


async def _pairs(work: AsyncSession, of: Any, other: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    rows: Iterable[Any] = await work.execute(select(of, other).order_by(of, other))
    for key, value in rows:
        found[key].append(value)
    return found
