"""What may be bought together with what is held, what it costs, and what a payment then starts."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from contracts.errors import DomainError, Kind
from contracts.events.checkout import Item
from services.checkout.projections.rules import Catalog
from services.checkout.subscriptions.rules import Held, SubscriptionStatus, month_after, trial_end


class SessionStatus(StrEnum):
    """Refused: paid, but no longer possible when the payment was reported; an operator gives the money back."""

    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"
    REFUSED = "refused"


class SessionUnknownError(DomainError):
    """Unknown, or another company's: the answer must not tell which."""

    kind = Kind.NOT_FOUND
    code = "session_unknown"
    title = "There is no such checkout session"


class NothingChosenError(DomainError):
    kind = Kind.INVALID
    code = "nothing_chosen"
    title = "Choose at least one package or add-on"


class SeveralBasesError(DomainError):
    kind = Kind.INVALID
    code = "several_bases"
    title = "A company has one base at a time"


class BaseMissingError(DomainError):
    kind = Kind.CONFLICT
    code = "base_missing"
    title = "An add-on needs a base"


class OtherBaseHeldError(DomainError):
    kind = Kind.CONFLICT
    code = "other_base_held"
    title = "The company has another base"


class NotCompatibleError(DomainError):
    kind = Kind.CONFLICT
    code = "not_compatible"
    title = "The add-on does not work with this base"


class ModuleMissingError(DomainError):
    kind = Kind.CONFLICT
    code = "module_missing"
    title = "The add-on extends a module the company does not have"


class AlreadyHeldError(DomainError):
    kind = Kind.CONFLICT
    code = "already_held"
    title = "The company has this already"


class TrialNotOfferedError(DomainError):
    kind = Kind.INVALID
    code = "trial_not_offered"
    title = "There is no trial of this"
    pointer = "/trial"


class TrialUsedError(DomainError):
    kind = Kind.CONFLICT
    code = "trial_used"
    title = "The company had its trial of this package"
    pointer = "/trial"


@dataclass(frozen=True)
class Line:
    """An item and what is due for it now, in minor units."""

    item: Item
    amount_minor: int


@dataclass(frozen=True)
class Order:
    """What a session offers. The total is the sum of the lines."""

    lines: tuple[Line, ...]
    currency: str
    base_module: str | None
    #: The subscription a payment goes on with; none starts one.
    continues: Held | None

    @property
    def total_minor(self) -> int:
        return sum(line.amount_minor for line in self.lines)


@dataclass(frozen=True)
class Period:
    """Half open. `anchor` is None in a trial."""

    anchor: datetime | None
    start: datetime
    end: datetime


def order_of(
    items: Sequence[Item],
    *,
    trial: bool,
    held: Collection[Held],
    trials_had: Collection[str],
    catalog: Catalog,
    currency: str,
) -> Order:
    """What these items cost a company that holds this now. `held` are its live subscriptions.

    Raises what `check` raises, and ItemNotSoldError where an item has no price.
    """
    base, continues = check(items, trial=trial, held=held, trials_had=trials_had, catalog=catalog)
    lines = tuple(
        Line(item, 0 if trial else catalog.monthly_price(item, currency).amount_minor)
        for item in sorted(items, key=lambda item: (catalog.base_of(item) is None, item.kind != "package", item.key))
    )
    return Order(lines=lines, currency=currency, base_module=base, continues=continues)


def check(
    items: Collection[Item], *, trial: bool, held: Collection[Held], trials_had: Collection[str], catalog: Catalog
) -> tuple[str | None, Held | None]:
    """The base among the items and the subscription they continue, if any.

    Raises the first that holds of NothingChosenError, SeveralBasesError, OtherBaseHeldError, BaseMissingError,
    NotCompatibleError, ModuleMissingError, TrialNotOfferedError, TrialUsedError, AlreadyHeldError. It is judged again
    when the payment is reported: meanwhile another session may have been paid.
    """
    if not items:
        raise NothingChosenError
    base = _base_among(items, catalog)
    held_base = next((each for each in held if each.base_module is not None), None)
    if base is not None and held_base is not None and held_base.base_module != base:
        raise OtherBaseHeldError(
            f"Its base is {held_base.base_module!r} until {held_base.ends_at.isoformat()}. Cancel that one first.",
            base=held_base.base_module,
        )
    on = base or (held_base.base_module if held_base else None)
    if on is None:
        raise BaseMissingError("Buy a base package with it, or before it.")
    _check_fit(items, on, held, catalog)
    if trial:
        _check_trial(items, held_base, trials_had, catalog)
        return base, None
    return base, _continued(items, base, held, held_base)


def _base_among(items: Iterable[Item], catalog: Catalog) -> str | None:
    bases = [base for item in items if (base := catalog.base_of(item)) is not None]
    if len(bases) > 1:
        raise SeveralBasesError(f"These are bases: {', '.join(sorted(bases))}.", bases=sorted(bases))
    return bases[0] if bases else None


def _check_fit(items: Collection[Item], base: str, held: Iterable[Held], catalog: Catalog) -> None:
    for item in items:
        if not catalog.fits(item, base):
            raise NotCompatibleError(f"{item.key!r} does not work with the base {base!r}.", item=item.key, base=base)
    together = {*items, *(item for each in held for item in each.items)}
    modules = {base, *(key for item in together for key in catalog.addon_modules_of(item))}
    for item in items:
        if item.kind == "addon" and not modules.intersection(catalog.addons[item.key].modules):
            needed = " or ".join(catalog.addons[item.key].modules)
            raise ModuleMissingError(f"{item.key!r} extends {needed}, which the company does not have.", item=item.key)


def _check_trial(items: Iterable[Item], held_base: Held | None, trials_had: Collection[str], catalog: Catalog) -> None:
    base_package = next((item.key for item in items if catalog.base_of(item) is not None), None)
    if base_package is None or catalog.packages[base_package].trial_days == 0:
        raise TrialNotOfferedError("A trial is of a base package; add-ons bought with it are covered.")
    if base_package in trials_had:
        raise TrialUsedError(f"There is one trial of {base_package!r} per company.", package=base_package)
    if held_base is not None:
        raise AlreadyHeldError(f"The base {held_base.base_module!r} runs until {held_base.ends_at.isoformat()}.")


def _continued(
    items: Collection[Item], base: str | None, held: Collection[Held], held_base: Held | None
) -> Held | None:
    """A paid trial of the base goes on with what is paid; a paid subscription only as it is."""
    same = next((each for each in held if each.items == frozenset(items)), None)
    trialed = held_base if base is not None and held_base and held_base.status is SubscriptionStatus.TRIALING else None
    continues = same or trialed
    others = [each for each in held if each is not continues]
    twice = sorted(item.key for each in others for item in each.items if item in items)
    if twice:
        raise AlreadyHeldError(
            f"{', '.join(twice)} runs already. Buy what is new by itself; pay on with all that was bought together.",
            items=twice,
        )
    if base is not None and held_base is not None and continues is not held_base:
        raise AlreadyHeldError(f"The base {base!r} runs until {held_base.ends_at.isoformat()}.", base=base)
    return continues


def period_of(continues: Held | None, paid_at: datetime, *, trial_days: int | None) -> Period:
    """What a payment at `paid_at` starts: a trial, a first month, or the month after those paid before."""
    if trial_days is not None:
        return Period(None, paid_at, trial_end(paid_at, trial_days))
    if continues is None or continues.anchor_at is None:
        return Period(paid_at, paid_at, month_after(paid_at, paid_at))
    return Period(continues.anchor_at, continues.period_end, month_after(continues.anchor_at, continues.period_end))
