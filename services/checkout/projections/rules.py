"""The catalog as Core publishes it, and what its rows cost."""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.errors import DomainError, Kind
from contracts.events.checkout import Item
from contracts.events.entitlements import AddonChanged, CatalogStatus, ModuleChanged, PackageChanged, PriceChanged


class CatalogAwaitedError(DomainError):
    """Core has not published the catalog to this database yet, or not enough of it to sell this."""

    kind = Kind.UNAVAILABLE
    code = "catalog_awaited"
    title = "The catalog has not arrived yet"


class ItemNotSoldError(DomainError):
    kind = Kind.INVALID
    code = "item_not_sold"
    title = "This is not for sale"


@dataclass(frozen=True)
class Catalog:
    """Rows by key, retired ones too. Modules, packages, add-ons and prices arrive in any order."""

    modules: Mapping[str, ModuleChanged]
    packages: Mapping[str, PackageChanged]
    addons: Mapping[str, AddonChanged]
    prices: Mapping[str, PriceChanged]

    def sold(self, key: str) -> Item:
        """The package or commercial add-on of this key. Raises ItemNotSoldError or CatalogAwaitedError."""
        if not self.packages:
            raise CatalogAwaitedError("Core has published no package yet. Try again in a moment.")
        for kind, rows in (("package", self.packages), ("addon", self.addons)):
            row = rows.get(key)
            if row is not None and row.status is CatalogStatus.ACTIVE:
                return Item(kind="package" if kind == "package" else "addon", key=key)
        raise ItemNotSoldError(f"There is no package or add-on {key!r} for sale.", key=key)

    def base_of(self, item: Item) -> str | None:
        """The base module an item turns on; none for add-ons and packages of add-ons."""
        package = self.packages.get(item.key) if item.kind == "package" else None
        return package.base_module if package else None

    def addon_modules_of(self, item: Item) -> tuple[str, ...]:
        """The add-on modules an item turns on."""
        package = self.packages.get(item.key) if item.kind == "package" else None
        return package.addon_modules if package else ()

    def fits(self, item: Item, base: str) -> bool:
        """Whether an item can be used on this base. Raises CatalogAwaitedError."""
        if item.kind == "addon":
            return True
        return all(base in self._module(key).compatible_bases for key in self.packages[item.key].addon_modules)

    def _module(self, key: str) -> ModuleChanged:
        if key not in self.modules:
            raise CatalogAwaitedError(f"Core has not published the module {key!r} yet. Try again in a moment.")
        return self.modules[key]

    def monthly_price(self, item: Item, currency: str) -> PriceChanged:
        """What a month of an item costs. Raises ItemNotSoldError."""
        for _, price in sorted(self.prices.items()):
            if (
                (price.item_kind, price.item_key) == (item.kind, item.key)
                and (price.currency, price.interval) == (currency, "month")
                and price.status is CatalogStatus.ACTIVE
            ):
                return price
        raise ItemNotSoldError(f"{item.key!r} has no monthly price in {currency}.", key=item.key)
