"""What Checkout publishes: facts of purchases and subscriptions, kept for ever.

Times are the payment provider's, since its events arrive late and out of order; the envelope's `occurred_at` is when
Checkout recorded the fact.
"""

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from contracts.identifiers import CompanyId
from contracts.payload import AmountMinor, Count, Currency, Instant, Part, Payload, Slug


class Item(Part):
    """A package or an add-on of the catalog."""

    kind: Literal["package", "addon"]
    key: Slug


class PurchaseLine(Part):
    """An item and what was paid or given back for it."""

    kind: Literal["package", "addon"]
    key: Slug
    amount_minor: AmountMinor


Items = Annotated[tuple[Item, ...], Field(min_length=1)]
PurchaseLines = Annotated[tuple[PurchaseLine, ...], Field(min_length=1)]


class _PurchaseFact(Payload):
    purchase_id: UUID
    subscription_id: UUID
    lines: PurchaseLines
    #: The sum of the lines.
    total_minor: AmountMinor
    currency: Currency

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - its company is the record's key
        """The purchase."""
        return str(self.purchase_id)


class PurchaseCompleted(_PurchaseFact):
    """Paid for: the items are the company's from `period_start` to `period_end`, exclusive."""

    event_type: ClassVar[str] = "checkout.purchase-completed.v1"

    completed_at: Instant
    period_start: Instant
    period_end: Instant


class PurchaseRefunded(_PurchaseFact):
    """Given back: the items are not the company's from `refunded_at` on."""

    event_type: ClassVar[str] = "checkout.purchase-refunded.v1"

    refund_id: UUID
    refunded_at: Instant


class _SubscriptionFact(Payload):
    subscription_id: UUID
    #: All the subscription holds at `effective_at`, not what changed.
    items: Items
    effective_at: Instant

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - its company is the record's key
        """The subscription."""
        return str(self.subscription_id)


class TrialStarted(_SubscriptionFact):
    """Free until `trial_end`, exclusive."""

    event_type: ClassVar[str] = "checkout.trial-started.v1"

    trial_end: Instant


class SubscriptionActivated(_SubscriptionFact):
    """Paid for the first time, or again after it was past due."""

    event_type: ClassVar[str] = "checkout.subscription-activated.v1"

    period_start: Instant
    period_end: Instant


class SubscriptionRenewed(_SubscriptionFact):
    """Paid for a further period."""

    event_type: ClassVar[str] = "checkout.subscription-renewed.v1"

    period_start: Instant
    period_end: Instant


class PaymentFailed(_SubscriptionFact):
    """A try to collect failed. Changes no access by itself."""

    event_type: ClassVar[str] = "checkout.payment-failed.v1"

    attempt: Annotated[Count, Field(ge=1)]
    next_attempt_at: Instant | None


class SubscriptionBecamePastDue(_SubscriptionFact):
    """Unpaid, with access until `grace_until`, exclusive."""

    event_type: ClassVar[str] = "checkout.subscription-became-past-due.v1"

    grace_until: Instant


class SubscriptionCanceled(_SubscriptionFact):
    """Will not renew; access lasts until `ends_at`, exclusive, which may be now."""

    event_type: ClassVar[str] = "checkout.subscription-canceled.v1"

    ends_at: Instant


class SubscriptionEnded(_SubscriptionFact):
    """Over at `effective_at`; nothing it held is the company's any more."""

    event_type: ClassVar[str] = "checkout.subscription-ended.v1"
