from typing import Literal

from chassis.request import Work
from chassis.routing import ResponseModel, problem_statuses, router
from contracts.events.entitlements import PriceChanged
from middleware.guards import ActiveMember, Public, guard
from services.entitlements.catalog import operations
from services.entitlements.manifest import MANIFEST

catalog = router(prefix=MANIFEST.route_group, tag="catalog")


class PriceBody(ResponseModel):
    """`amount_minor` is in the currency's minor unit; a placeholder is not a price anybody set yet."""

    amount_minor: int
    currency: str
    interval: Literal["month", "year"]
    placeholder: bool


class PackageBody(ResponseModel):
    """`base_module` is none for a package of add-on modules; `trial_days` of 0 is no trial."""

    key: str
    label: str
    base_module: str | None
    addon_modules: tuple[str, ...]
    trial_days: int
    prices: tuple[PriceBody, ...]


class AddonBody(ResponseModel):
    """A capability on top of one of `modules`."""

    key: str
    label: str
    capability: str
    modules: tuple[str, ...]
    prices: tuple[PriceBody, ...]


class Offers(ResponseModel):
    """What can be bought now."""

    packages: tuple[PackageBody, ...]
    addons: tuple[AddonBody, ...]


class ModuleBody(ResponseModel):
    """`compatible_bases` is empty for a base."""

    key: str
    type: Literal["base", "addon"]
    label: str
    compatible_bases: tuple[str, ...]
    status: str


@catalog.get("/packages", responses=problem_statuses(503))
@guard(Public("prices are on the website"))
async def list_packages(work: Work) -> Offers:
    """Packages and commercial add-ons with their prices."""
    known = await operations.catalog(work)

    def prices(kind: str, key: str) -> tuple[PriceBody, ...]:
        of_item = [
            price
            for price in known.prices.values()
            if (price.item_kind, price.item_key) == (kind, key) and price.status == "active"
        ]
        return tuple(PriceBody.model_validate(price) for price in sorted(of_item, key=_by_key))

    return Offers(
        packages=tuple(
            PackageBody(
                key=package.key,
                label=package.label,
                base_module=package.base_module,
                addon_modules=package.addon_modules,
                trial_days=package.trial_days,
                prices=prices("package", key),
            )
            for key, package in sorted(known.packages.items())
            if package.status == "active"
        ),
        addons=tuple(
            AddonBody(
                key=addon.key,
                label=addon.label,
                capability=addon.capability,
                modules=addon.modules,
                prices=prices("addon", key),
            )
            for key, addon in sorted(known.addons.items())
            if addon.status == "active"
        ),
    )


def _by_key(price: PriceChanged) -> str:
    return price.key


@catalog.get("/modules")
@guard(ActiveMember())
async def list_modules(work: Work) -> list[ModuleBody]:
    """Every module of the catalog, and the bases its add-ons work with."""
    known = await operations.catalog(work)
    return [ModuleBody.model_validate(module) for _, module in sorted(known.modules.items())]
