"""The seeded catalog, and facts as Checkout tells them."""

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import services.entitlements
from contracts.events.checkout import (
    Item,
    PurchaseCompleted,
    PurchaseLine,
    PurchaseRefunded,
    SubscriptionActivated,
    SubscriptionBecamePastDue,
    SubscriptionCanceled,
    SubscriptionEnded,
    SubscriptionRenewed,
    TrialStarted,
)
from contracts.events.entitlements import AddonChanged, CatalogStatus, ModuleChanged, PackageChanged
from contracts.identifiers import new_id
from services.entitlements.catalog.rules import Catalog
from services.entitlements.companies.rules import PurchaseFactData, RecordedFact

START = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
MONTH = timedelta(days=30)
_NAMESPACE = UUID(int=0)


def seeded_catalog() -> Catalog:
    folder = Path(services.entitlements.__path__[0])
    rows: dict[str, dict[str, dict[str, Any]]] = tomllib.loads((folder / "catalog" / "seed.toml").read_text())

    def related(table: str, column: str, of: str, key: str, **fixed: str) -> tuple[str, ...]:
        found = (row for row in rows[table].values() if row[of] == key and fixed.items() <= row.items())
        return tuple(sorted(row[column] for row in found))

    return Catalog(
        modules={
            key: ModuleChanged(
                **row,
                compatible_bases=related("compatible_bases", "base_key", "addon_key", key),
                status=CatalogStatus.ACTIVE,
            )
            for key, row in rows["modules"].items()
        },
        packages={
            key: PackageChanged(
                **row,
                base_module=next(
                    iter(related("package_modules", "module_key", "package_key", key, module_type="base")), None
                ),
                addon_modules=related("package_modules", "module_key", "package_key", key, module_type="addon"),
                status=CatalogStatus.ACTIVE,
            )
            for key, row in rows["packages"].items()
        },
        addons={
            key: AddonChanged(
                **row,
                modules=related("addon_modules", "module_key", "addon_key", key),
                status=CatalogStatus.ACTIVE,
            )
            for key, row in rows["addons"].items()
        },
        prices={},
    )


CATALOG = seeded_catalog()


def subscription(name: str) -> UUID:
    return uuid5(_NAMESPACE, name)


def items(*keys: str) -> tuple[Item, ...]:
    return tuple(Item(kind="addon" if key in CATALOG.addons else "package", key=key) for key in keys)


def lines(*keys: str) -> tuple[PurchaseLine, ...]:
    return tuple(PurchaseLine(kind=item.kind, key=item.key, amount_minor=100) for item in items(*keys))


def at(days: float) -> datetime:
    return START + timedelta(days=days)


def trial(name: str, *keys: str, day: float = 0) -> TrialStarted:
    return TrialStarted(
        subscription_id=subscription(name), items=items(*keys), effective_at=at(day), trial_end=at(day + 7)
    )


def activated(name: str, *keys: str, day: float = 0) -> SubscriptionActivated:
    return SubscriptionActivated(
        subscription_id=subscription(name),
        items=items(*keys),
        effective_at=at(day),
        period_start=at(day),
        period_end=at(day) + MONTH,
    )


def renewed(name: str, *keys: str, day: float, from_day: float) -> SubscriptionRenewed:
    return SubscriptionRenewed(
        subscription_id=subscription(name),
        items=items(*keys),
        effective_at=at(day),
        period_start=at(from_day),
        period_end=at(from_day) + MONTH,
    )


def purchased(name: str, *keys: str, day: float = 0) -> PurchaseCompleted:
    return PurchaseCompleted(
        purchase_id=uuid5(_NAMESPACE, f"purchase of {name} on day {day}"),
        subscription_id=subscription(name),
        lines=lines(*keys),
        total_minor=100 * len(keys),
        currency="USD",
        completed_at=at(day),
        period_start=at(day),
        period_end=at(day) + MONTH,
    )


def refunded(name: str, *keys: str, day: float, bought_on: float = 0) -> PurchaseRefunded:
    return PurchaseRefunded(
        purchase_id=uuid5(_NAMESPACE, f"purchase of {name} on day {bought_on}"),
        subscription_id=subscription(name),
        lines=lines(*keys),
        total_minor=100 * len(keys),
        currency="USD",
        refund_id=uuid5(_NAMESPACE, f"refund of {name} on day {day}"),
        refunded_at=at(day),
    )


def past_due(name: str, *keys: str, day: float, grace_until: float) -> SubscriptionBecamePastDue:
    return SubscriptionBecamePastDue(
        subscription_id=subscription(name), items=items(*keys), effective_at=at(day), grace_until=at(grace_until)
    )


def canceled(name: str, *keys: str, day: float, ends: float) -> SubscriptionCanceled:
    return SubscriptionCanceled(
        subscription_id=subscription(name), items=items(*keys), effective_at=at(day), ends_at=at(ends)
    )


def ended(name: str, *keys: str, day: float) -> SubscriptionEnded:
    return SubscriptionEnded(subscription_id=subscription(name), items=items(*keys), effective_at=at(day))


def recorded(*facts: PurchaseFactData) -> list[RecordedFact]:
    return [
        RecordedFact(event_id=new_id(), epoch=1, version=number, data=fact)
        for number, fact in enumerate(facts, start=1)
    ]
