from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import DomainError
from contracts.events.checkout import Item
from contracts.events.entitlements import AddonChanged, CatalogStatus, ModuleChanged, PackageChanged, PriceChanged
from services.checkout.projections.rules import Catalog, CatalogAwaitedError, ItemNotSoldError
from services.checkout.sessions import rules
from services.checkout.sessions.rules import Order, order_of, period_of
from services.checkout.subscriptions.rules import Held, SubscriptionStatus

NOW = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
BASES = ("promoter", "venue")
PRICES = {"basic_promoter": 19900, "basic_venue": 29900, "finance": 4900, "touring": 5900, "ai": 4900}
ADDON_PRICES = {"venue_directory": 1900, "ai_sales_report": 900}


def catalog(prices: dict[str, int] | None = None) -> Catalog:
    costs = {**PRICES, **ADDON_PRICES, **(prices or {})}
    compatible = {"finance": BASES, "ai": BASES, "touring": ("promoter",)}
    active = CatalogStatus.ACTIVE
    return Catalog(
        modules={
            **{
                key: ModuleChanged(key=key, type="base", label=key, compatible_bases=(), status=active) for key in BASES
            },
            **{
                key: ModuleChanged(key=key, type="addon", label=key, compatible_bases=bases, status=active)
                for key, bases in compatible.items()
            },
        },
        packages={
            **{
                f"basic_{key}": PackageChanged(
                    key=f"basic_{key}", label=key, base_module=key, addon_modules=(), trial_days=7, status=active
                )
                for key in BASES
            },
            **{
                key: PackageChanged(
                    key=key, label=key, base_module=None, addon_modules=(key,), trial_days=0, status=active
                )
                for key in compatible
            },
            "old": PackageChanged(
                key="old",
                label="old",
                base_module=None,
                addon_modules=("ai",),
                trial_days=0,
                status=CatalogStatus.RETIRED,
            ),
        },
        addons={
            "venue_directory": AddonChanged(
                key="venue_directory", label="", capability="venue_directory", modules=("promoter",), status=active
            ),
            "ai_sales_report": AddonChanged(
                key="ai_sales_report", label="", capability="ai_sales_report", modules=("ai",), status=active
            ),
        },
        prices={
            f"{key}_month_usd": PriceChanged(
                key=f"{key}_month_usd",
                item_kind="addon" if key in ADDON_PRICES else "package",
                item_key=key,
                amount_minor=amount,
                currency="USD",
                interval="month",
                placeholder=False,
                status=active,
            )
            for key, amount in costs.items()
        },
    )


CATALOG = catalog()


def items(*keys: str) -> list[Item]:
    return [CATALOG.sold(key) for key in keys]


def held(*keys: str, number: int = 1, status: SubscriptionStatus = SubscriptionStatus.ACTIVE) -> Held:
    base = next((CATALOG.base_of(item) for item in items(*keys) if CATALOG.base_of(item)), None)
    return Held(
        id=UUID(int=number),
        status=status,
        items=frozenset(items(*keys)),
        base_module=base,
        anchor_at=NOW if status is SubscriptionStatus.ACTIVE else None,
        period_end=NOW + timedelta(days=31),
        ends_at=NOW + timedelta(days=31),
    )


def order(*keys: str, holding: Sequence[Held] = (), trial: bool = False, had: Sequence[str] = ()) -> Order:
    return order_of(items(*keys), trial=trial, held=holding, trials_had=had, catalog=CATALOG, currency="USD")


TRIALING = held("basic_promoter", "finance", status=SubscriptionStatus.TRIALING)
PROMOTER = held("basic_promoter")


def test_lines_are_the_monthly_prices_with_the_base_first() -> None:
    made = order("finance", "venue_directory", "basic_promoter")
    assert [(line.item.key, line.amount_minor) for line in made.lines] == [
        ("basic_promoter", 19900),
        ("finance", 4900),
        ("venue_directory", 1900),
    ]
    assert (made.total_minor, made.currency, made.base_module, made.continues) == (26700, "USD", "promoter", None)


@given(
    amounts=st.fixed_dictionaries(
        {key: st.integers(min_value=0, max_value=2**40) for key in ("basic_promoter", "finance", "touring")}
    )
)
def test_the_total_is_the_sum_of_the_lines(amounts: dict[str, int]) -> None:
    made = order_of(items(*amounts), trial=False, held=(), trials_had=(), catalog=catalog(amounts), currency="USD")
    assert made.total_minor == sum(amounts.values()) == sum(line.amount_minor for line in made.lines)


def test_a_trial_costs_nothing_and_covers_the_addons_bought_with_it() -> None:
    made = order("basic_promoter", "finance", trial=True)
    assert ([line.amount_minor for line in made.lines], made.total_minor) == ([0, 0], 0)


@pytest.mark.parametrize(
    ("keys", "given_", "error"),
    [
        ((), {}, rules.NothingChosenError),
        (("basic_promoter", "basic_venue"), {}, rules.SeveralBasesError),
        (("finance",), {}, rules.BaseMissingError),
        (("basic_venue",), {"holding": [PROMOTER]}, rules.OtherBaseHeldError),
        (("basic_venue", "touring"), {}, rules.NotCompatibleError),
        (("touring",), {"holding": [held("basic_venue")]}, rules.NotCompatibleError),
        (("basic_promoter", "ai_sales_report"), {}, rules.ModuleMissingError),
        (("basic_venue", "venue_directory"), {}, rules.ModuleMissingError),
        (("finance",), {"holding": [PROMOTER], "trial": True}, rules.TrialNotOfferedError),
        (("basic_promoter",), {"trial": True, "had": ["basic_promoter"]}, rules.TrialUsedError),
        (("basic_promoter",), {"trial": True, "holding": [PROMOTER]}, rules.AlreadyHeldError),
        (("basic_promoter", "finance"), {"holding": [PROMOTER]}, rules.AlreadyHeldError),
        (("basic_promoter",), {"holding": [held("basic_promoter", "finance")]}, rules.AlreadyHeldError),
        (("finance", "ai"), {"holding": [PROMOTER, held("finance", number=2)]}, rules.AlreadyHeldError),
        (
            ("basic_promoter", "ai"),
            {"holding": [held("basic_promoter", status=SubscriptionStatus.TRIALING), held("ai", number=2)]},
            rules.AlreadyHeldError,
        ),
    ],
)
def test_what_cannot_be_bought_is_refused_with_its_reason(
    keys: Sequence[str], given_: dict[str, Any], error: type[DomainError]
) -> None:
    with pytest.raises(error):
        order(*keys, **given_)


def test_an_addon_is_bought_for_the_base_of_an_earlier_purchase() -> None:
    made = order("finance", holding=[PROMOTER])
    assert (made.base_module, made.continues) == (None, None)
    assert order("ai_sales_report", holding=[PROMOTER, held("ai", number=2)]).continues is None


def test_a_trial_of_another_base_is_offered_after_the_first() -> None:
    assert order("basic_venue", trial=True, had=["basic_promoter"]).base_module == "venue"


@pytest.mark.parametrize("keys", [("basic_promoter",), ("basic_promoter", "finance"), ("basic_promoter", "ai")])
def test_paying_in_a_trial_goes_on_with_its_subscription_whatever_is_kept_of_it(keys: Sequence[str]) -> None:
    assert order(*keys, holding=[TRIALING]).continues is TRIALING


def test_buying_exactly_what_runs_goes_on_with_it() -> None:
    addon = held("finance", number=2)
    assert order("basic_promoter", holding=[PROMOTER, addon]).continues is PROMOTER
    assert order("finance", holding=[PROMOTER, addon]).continues is addon


def test_a_period_is_the_trial_a_month_from_the_payment_or_the_month_after_the_paid_one() -> None:
    paid_at = NOW + timedelta(days=3)
    trial = period_of(None, paid_at, trial_days=7)
    assert (trial.anchor, trial.start, trial.end) == (None, paid_at, paid_at + timedelta(days=7))
    first = period_of(None, paid_at, trial_days=None)
    assert (first.anchor, first.start, first.end) == (paid_at, paid_at, datetime(2026, 6, 24, 9, tzinfo=UTC))
    assert period_of(TRIALING, paid_at, trial_days=None) == first
    further = period_of(PROMOTER, paid_at, trial_days=None)
    assert (further.anchor, further.start, further.end) == (
        NOW,
        PROMOTER.period_end,
        datetime(2026, 7, 21, 9, tzinfo=UTC),
    )


def test_only_what_is_active_and_priced_is_sold() -> None:
    for key in ("old", "basic_agency"):
        with pytest.raises(ItemNotSoldError):
            CATALOG.sold(key)
    with pytest.raises(ItemNotSoldError):
        order_of(items("basic_promoter"), trial=False, held=(), trials_had=(), catalog=CATALOG, currency="EUR")


def test_a_catalog_that_has_not_arrived_is_not_an_empty_one() -> None:
    with pytest.raises(CatalogAwaitedError):
        Catalog(modules={}, packages={}, addons={}, prices={}).sold("basic_promoter")
    without_modules = Catalog(modules={}, packages=CATALOG.packages, addons={}, prices=CATALOG.prices)
    with pytest.raises(CatalogAwaitedError):
        without_modules.fits(Item(kind="package", key="finance"), "promoter")
