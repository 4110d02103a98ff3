"""How long a subscription runs, and what may be done with it."""

import calendar
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.events.checkout import Item

_MONTHS_PER_YEAR: Final = 12


class SubscriptionStatus(StrEnum):
    """Stripe's names. A canceled subscription is over; one that will not renew is active until its end."""

    TRIALING = "trialing"
    ACTIVE = "active"
    CANCELED = "canceled"


class SubscriptionUnknownError(DomainError):
    """Unknown, of another company, or over: there is nothing to act on."""

    kind = Kind.NOT_FOUND
    code = "subscription_unknown"
    title = "There is no such subscription"


@dataclass(frozen=True)
class Held:
    """A subscription that is not canceled. `ends_at` is exclusive: the end of the period, or an earlier one."""

    id: UUID
    status: SubscriptionStatus
    items: frozenset[Item]
    base_module: str | None
    #: The start of the first paid period; later ones end on its day of the month. None in a trial.
    anchor_at: datetime | None
    period_end: datetime
    ends_at: datetime

    def is_live(self, now: datetime) -> bool:
        return now < self.ends_at


def live_of(subscriptions: Iterable[Held], now: datetime) -> list[Held]:
    """Those that still run."""
    return [subscription for subscription in subscriptions if subscription.is_live(now)]


def chosen(subscriptions: Iterable[Held], subscription_id: UUID | None) -> Held:
    """The subscription an action is about: the named one, else the one of the base. Raises SubscriptionUnknownError."""
    for subscription in subscriptions:
        if subscription.id == subscription_id or (subscription_id is None and subscription.base_module is not None):
            return subscription
    if subscription_id is None:
        raise SubscriptionUnknownError("The company has no base subscription that runs.")
    raise SubscriptionUnknownError(f"The company has no running subscription {subscription_id}.")


def trial_end(start: datetime, days: int) -> datetime:
    """Whole days of 24 h, to the second."""
    return start + timedelta(days=days)


def month_after(anchor: datetime, start: datetime) -> datetime:
    """The end of the monthly period that begins at `start`: the next instant on the anchor's day of a month.

    Where a month is too short its last day stands in, and the month after is back on the anchor's day: 31 January,
    28 February, 31 March.
    """
    months = (start.year - anchor.year) * _MONTHS_PER_YEAR + start.month - anchor.month
    end = _months_later(anchor, months)
    return end if end > start else _months_later(anchor, months + 1)


def _months_later(anchor: datetime, months: int) -> datetime:
    years, month = divmod(anchor.month - 1 + months, _MONTHS_PER_YEAR)
    year, month = anchor.year + years, month + 1
    return anchor.replace(year=year, month=month, day=min(anchor.day, calendar.monthrange(year, month)[1]))


When = Literal["now", "period_end"]


def cancellation(subscription: Held, when: When, now: datetime) -> datetime:
    """When a canceled subscription ends; never later than it would have."""
    return min(now if when == "now" else subscription.period_end, subscription.ends_at)


def effective_at(now: datetime, last: datetime) -> datetime:
    """The instant of the next fact: `now`, or that of the one before where clocks of two machines disagree.

    Readers apply facts in the order of these instants; a later fact must not have an earlier one.
    """
    return max(now, last)
