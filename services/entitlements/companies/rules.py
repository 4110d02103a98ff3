"""A company's entitlement as a function of what was bought. Facts come late, twice and out of order; their set decides.

Facts are applied in the order of the payment provider's time. Time itself is no input: every module carries the end of
its validity, and who decides a request compares it with the clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.events.checkout import (
    Item,
    PaymentFailed,
    PurchaseCompleted,
    PurchaseRefunded,
    SubscriptionActivated,
    SubscriptionBecamePastDue,
    SubscriptionCanceled,
    SubscriptionEnded,
    SubscriptionRenewed,
    TrialStarted,
)
from contracts.events.entitlements import (
    BaseEntitlement,
    EntitlementChanged,
    EntitlementStatus,
    ModuleChanged,
    ModuleEntitlement,
)
from contracts.identifiers import CompanyId
from services.entitlements.catalog.rules import Catalog

PurchaseFactData: TypeAlias = (
    PurchaseCompleted
    | PurchaseRefunded
    | TrialStarted
    | SubscriptionActivated
    | SubscriptionRenewed
    | PaymentFailed
    | SubscriptionBecamePastDue
    | SubscriptionCanceled
    | SubscriptionEnded
)


class CompanyUnknownError(DomainError):
    """Unknown, or another company: the answer must not tell which."""

    kind = Kind.NOT_FOUND
    code = "company_unknown"
    title = "There is no such company"


def parse_key(key: str) -> CompanyId:
    """The company of a key on the topic, in the one form it has. Raises ValueError."""
    company_id = UUID(key)
    if key != str(company_id):
        raise ValueError("not the one form of a key")
    return CompanyId(company_id)


def check_own(asked: UUID, own: UUID) -> None:
    """Raises CompanyUnknownError for every company but the one the caller acts in."""
    if asked != own:
        raise CompanyUnknownError(f"No company has the id {asked}.")


@dataclass(frozen=True)
class RecordedFact:
    """A fact with what orders it among those of the same provider time."""

    event_id: UUID
    epoch: int
    version: int
    data: PurchaseFactData


@dataclass(frozen=True)
class Validity:
    """A module or capability that was bought, and the end of it, exclusive."""

    key: str
    valid_until: datetime


@dataclass(frozen=True)
class BaseHeld:
    """The one base of a company."""

    module: str
    status: EntitlementStatus
    valid_until: datetime


@dataclass(frozen=True)
class Entitlement:
    """What the facts add up to.

    `modules` and `capabilities` are usable while the base is live; `kept` is every add-on module that was bought,
    usable or not: a base that returns brings them back.
    """

    status: EntitlementStatus
    base: BaseHeld | None
    modules: tuple[Validity, ...]
    capabilities: tuple[Validity, ...]
    kept: tuple[Validity, ...]


NOTHING: Final = Entitlement(status=EntitlementStatus.NONE, base=None, modules=(), capabilities=(), kept=())


@dataclass(frozen=True)
class _Subscription:
    """One subscription after the facts applied so far."""

    status: EntitlementStatus
    until: Mapping[Item, datetime]


_UNSTARTED: Final = _Subscription(EntitlementStatus.NONE, {})


def provider_time(data: PurchaseFactData) -> datetime:
    """When the payment provider says it happened."""
    match data:
        case PurchaseCompleted():
            return data.completed_at
        case PurchaseRefunded():
            return data.refunded_at
        case _:
            return data.effective_at


def items_of(data: PurchaseFactData) -> tuple[Item, ...]:
    """The catalog items a fact names."""
    if isinstance(data, PurchaseCompleted | PurchaseRefunded):
        return tuple(Item(kind=line.kind, key=line.key) for line in data.lines)
    return data.items


def _order(fact: RecordedFact) -> tuple[datetime, bool, bool, int, int, UUID]:
    """Total, so that equal sets give equal results. At one instant a purchase counts before what it led to."""
    is_purchase = isinstance(fact.data, PurchaseCompleted | PurchaseRefunded)
    is_refund = isinstance(fact.data, PurchaseRefunded)
    return provider_time(fact.data), is_refund, not is_purchase, fact.epoch, fact.version, fact.event_id


def _after(before: _Subscription, data: PurchaseFactData) -> _Subscription:
    match data:
        case PurchaseCompleted() | PurchaseRefunded():
            return _after_purchase(before, data)
        case TrialStarted():
            return _Subscription(EntitlementStatus.TRIALING, dict.fromkeys(data.items, data.trial_end))
        case SubscriptionActivated() | SubscriptionRenewed():
            return _Subscription(EntitlementStatus.ACTIVE, dict.fromkeys(data.items, data.period_end))
        case SubscriptionBecamePastDue():
            return _Subscription(EntitlementStatus.PAST_DUE, dict.fromkeys(data.items, data.grace_until))
        case SubscriptionCanceled() | SubscriptionEnded():
            return _after_cancellation(before, data)
        case PaymentFailed():
            return before


def _after_purchase(before: _Subscription, data: PurchaseCompleted | PurchaseRefunded) -> _Subscription:
    if isinstance(data, PurchaseRefunded):
        returned = set(items_of(data))
        return replace(before, until={item: end for item, end in before.until.items() if item not in returned})
    paid = {item: max(data.period_end, before.until.get(item, data.period_end)) for item in items_of(data)}
    return _Subscription(EntitlementStatus.ACTIVE, {**before.until, **paid})


def _after_cancellation(before: _Subscription, data: SubscriptionCanceled | SubscriptionEnded) -> _Subscription:
    if isinstance(data, SubscriptionCanceled) and data.ends_at > data.effective_at:
        return replace(before, until={item: min(end, data.ends_at) for item, end in before.until.items()})
    return _Subscription(EntitlementStatus.ENDED, {})


def derive(facts: Iterable[RecordedFact], catalog: Catalog) -> Entitlement:
    """The entitlement these facts give; order and repetition of the input do not matter. Raises ItemUnknownError."""
    distinct = {fact.event_id: fact for fact in facts}.values()
    subscriptions: dict[UUID, _Subscription] = {}
    had_base = False
    for fact in sorted(distinct, key=_order):
        items = items_of(fact.data)
        catalog.check_known(items)
        had_base = had_base or any(_base_module(item, catalog) for item in items)
        subscription_id = fact.data.subscription_id
        subscriptions[subscription_id] = _after(subscriptions.get(subscription_id, _UNSTARTED), fact.data)
    base = _one_base(subscriptions, catalog)
    until = _longest(subscriptions.values())
    kept = _modules(until, catalog)
    if base is None:
        return replace(NOTHING, status=EntitlementStatus.ENDED if had_base else EntitlementStatus.NONE, kept=kept)
    modules = (
        Validity(base.module, base.valid_until),
        *(module for module in kept if catalog.fits(module.key, base.module)),
    )
    return Entitlement(
        status=base.status,
        base=base,
        modules=modules,
        capabilities=_capabilities(until, {module.key for module in modules}, catalog),
        kept=kept,
    )


def _one_base(subscriptions: Mapping[UUID, _Subscription], catalog: Catalog) -> BaseHeld | None:
    """Checkout sells one base at a time; should facts show two, the one that lasts longest holds."""
    found = [
        (until, subscription_id, BaseHeld(module, subscription.status, until))
        for subscription_id, subscription in subscriptions.items()
        for item, until in subscription.until.items()
        if (module := _base_module(item, catalog)) is not None
    ]
    return max(found, key=lambda each: (each[0], each[1], each[2].module))[2] if found else None


def _base_module(item: Item, catalog: Catalog) -> str | None:
    return catalog.packages[item.key].base_module if item.kind == "package" else None


def _longest(subscriptions: Iterable[_Subscription]) -> dict[Item, datetime]:
    until: dict[Item, datetime] = {}
    for subscription in subscriptions:
        for item, end in subscription.until.items():
            until[item] = max(end, until.get(item, end))
    return until


def _modules(until: Mapping[Item, datetime], catalog: Catalog) -> tuple[Validity, ...]:
    ends: dict[str, datetime] = {}
    for item, end in until.items():
        if item.kind == "package":
            for module in catalog.packages[item.key].addon_modules:
                ends[module] = max(end, ends.get(module, end))
    return tuple(Validity(key, ends[key]) for key in sorted(ends))


def _capabilities(until: Mapping[Item, datetime], modules: set[str], catalog: Catalog) -> tuple[Validity, ...]:
    ends = {
        addon.capability: end
        for item, end in until.items()
        if item.kind == "addon" and modules.intersection((addon := catalog.addons[item.key]).modules)
    }
    return tuple(Validity(key, ends[key]) for key in sorted(ends))


def published(entitlement: Entitlement, *, suspended: bool, now: datetime) -> EntitlementChanged:
    """The state readers judge by, without what is over at `now`. They judge the other ends by the clock themselves,
    except those of capabilities, which travel without.
    """
    base = _live(entitlement.base, now)
    over = EntitlementStatus.ENDED if base is None and entitlement.base is not None else entitlement.status
    status = EntitlementStatus.SUSPENDED if suspended else over
    held = (
        BaseEntitlement(
            module=base.module,
            status=EntitlementStatus.SUSPENDED if suspended else base.status,
            valid_until=base.valid_until,
        )
        if base is not None
        else None
    )
    if suspended or base is None:
        return EntitlementChanged(status=status, base=held, modules=(), capabilities=())
    return EntitlementChanged(
        status=status,
        base=held,
        modules=tuple(
            ModuleEntitlement(key=each.key, valid_until=each.valid_until)
            for each in entitlement.modules
            if now < each.valid_until
        ),
        capabilities=tuple(each.key for each in entitlement.capabilities if now < each.valid_until),
    )


def nothing() -> EntitlementChanged:
    """What is published of a company that never bought anything."""
    return EntitlementChanged(status=EntitlementStatus.NONE, base=None, modules=(), capabilities=())


def next_end(entitlement: Entitlement, now: datetime) -> datetime | None:
    """When something of what is live at `now` ends first; None where nothing is."""
    base = _live(entitlement.base, now)
    if base is None:
        return None
    ends = (base.valid_until, *(each.valid_until for each in (*entitlement.modules, *entitlement.capabilities)))
    return min(end for end in ends if now < end)


def _live(base: BaseHeld | None, now: datetime) -> BaseHeld | None:
    return base if base is not None and now < base.valid_until else None


class Ground(StrEnum):
    """Why a module is on or off."""

    ENTITLED = "entitled"
    COMPANY_SUSPENDED = "company_suspended"
    NO_BASE = "no_base"
    BASE_EXPIRED = "base_expired"
    OTHER_BASE = "other_base"
    NOT_BOUGHT = "not_bought"
    NOT_COMPATIBLE = "not_compatible"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Explanation:
    """`valid_until` is the end of what was bought, past or to come; none where nothing was."""

    module: str
    entitled: bool
    ground: Ground
    detail: str
    valid_until: datetime | None


def explain(entitlement: Entitlement, catalog: Catalog, module: str, *, suspended: bool, now: datetime) -> Explanation:
    """Why a module is on or off for a company, the first ground that holds. Raises ModuleUnknownError."""
    row = catalog.module(module)
    bought = {each.key: each.valid_until for each in (*entitlement.kept, *entitlement.modules)}.get(module)
    base = entitlement.base
    if suspended:
        ground, detail = Ground.COMPANY_SUSPENDED, "The company is suspended. A platform admin can restore it."
    elif base is None:
        ground, detail = Ground.NO_BASE, "The company has no base module. Add-ons that were bought wait for one."
    elif now >= base.valid_until:
        ground, detail = Ground.BASE_EXPIRED, f"The base {base.module!r} ended at {base.valid_until.isoformat()}."
    elif row.type == "addon":
        ground, detail = _ground_of_addon(row, base, bought, now)
    elif row.key == base.module:
        ground, detail = Ground.ENTITLED, f"It is the company's base until {base.valid_until.isoformat()}."
    else:
        ground, detail = Ground.OTHER_BASE, f"The company's base is {base.module!r}; it has one base at a time."
    return Explanation(module, ground is Ground.ENTITLED, ground, detail, bought)


def _ground_of_addon(row: ModuleChanged, base: BaseHeld, bought: datetime | None, now: datetime) -> tuple[Ground, str]:
    if bought is None:
        return Ground.NOT_BOUGHT, f"No package that holds {row.key!r} was bought, or it has ended."
    if base.module not in row.compatible_bases:
        return Ground.NOT_COMPATIBLE, f"It works with the bases {', '.join(row.compatible_bases)}, not {base.module!r}."
    if now >= bought:
        return Ground.EXPIRED, f"It ended at {bought.isoformat()}."
    return Ground.ENTITLED, f"It was bought until {bought.isoformat()}."
