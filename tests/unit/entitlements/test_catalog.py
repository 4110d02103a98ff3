import tomllib
from pathlib import Path

import pytest

import services.entitlements
from contracts.events.checkout import Item
from contracts.permissions import PERMISSIONS
from contracts.services import ADDON_MODULES, BASE_MODULES
from services.entitlements.catalog.rules import ItemUnknownError, ModuleUnknownError
from tests.unit.entitlements.purchases import CATALOG

ROWS = tomllib.loads((Path(services.entitlements.__path__[0]) / "catalog" / "seed.toml").read_text())


def test_the_modules_are_the_four_bases_and_the_four_addons() -> None:
    of_type = {kind: {key for key, row in CATALOG.modules.items() if row.type == kind} for kind in ("base", "addon")}
    assert of_type == {"base": set(BASE_MODULES), "addon": set(ADDON_MODULES)}


@pytest.mark.parametrize(
    ("package", "amount_minor"),
    [("basic_promoter", 19900), ("basic_venue", 29900), ("basic_artist", 9900), ("basic_vendor", 1900)],
)
def test_a_base_costs_what_document_004_says_after_a_trial_of_seven_days(package: str, amount_minor: int) -> None:
    price = ROWS["prices"][f"{package}_month_usd"]
    assert (price["amount_minor"], price["currency"], price["placeholder"]) == (amount_minor, "USD", False)
    row = CATALOG.packages[package]
    assert (row.trial_days, row.base_module, row.addon_modules) == (7, package.removeprefix("basic_"), ())


def test_every_item_has_a_price_and_those_no_document_names_are_marked() -> None:
    priced = {row.get("package_key") or row.get("addon_key") for row in ROWS["prices"].values()}
    assert priced == {*CATALOG.packages, *CATALOG.addons}
    placeholders = {
        row.get("package_key") or row.get("addon_key") for row in ROWS["prices"].values() if row["placeholder"]
    }
    assert placeholders == {*ADDON_MODULES, *CATALOG.addons}


@pytest.mark.parametrize(
    ("addon", "bases"),
    [
        ("finance", {"promoter", "venue", "artist", "vendor"}),
        ("ai", {"promoter", "venue", "artist", "vendor"}),
        ("touring", {"promoter", "artist"}),
        ("venue_marketplace", {"promoter", "venue"}),
    ],
)
def test_an_addon_module_fits_the_bases_of_the_matrix(addon: str, bases: set[str]) -> None:
    assert {base for base in BASE_MODULES if CATALOG.fits(addon, base)} == bases


def test_a_commercial_addon_unlocks_a_capability_some_permission_needs() -> None:
    needed = {row.capability: module for module, rows in PERMISSIONS.items() for row in rows.values() if row.capability}
    assert {addon.capability: addon.modules for addon in CATALOG.addons.values()} == {
        capability: (module,) for capability, module in needed.items()
    }


def test_an_item_that_is_not_in_the_catalog_is_named() -> None:
    known = Item(kind="package", key="finance")
    CATALOG.check_known([known])
    for unknown in (Item(kind="package", key="basic_agency"), Item(kind="addon", key="finance")):
        with pytest.raises(ItemUnknownError, match=f"{unknown.kind}/{unknown.key}"):
            CATALOG.check_known([known, unknown])
    with pytest.raises(ModuleUnknownError):
        CATALOG.module("basic")
