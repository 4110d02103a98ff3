from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from chassis.request import Caller, Company, Now, Work
from chassis.routing import RequestModel, ResponseModel, problem_statuses, router
from middleware.guards import CompanyAdmin, guard
from services.checkout.manifest import MANIFEST
from services.checkout.subscriptions import operations
from services.checkout.subscriptions.rules import When
from services.checkout.subscriptions.tables import Subscription

subscriptions = router(prefix=MANIFEST.route_group, tag="subscriptions")


class ItemBody(ResponseModel):
    kind: str
    key: str


class SubscriptionBody(ResponseModel):
    """`ends_at` is exclusive: access to the items ends there unless a further period is paid."""

    id: UUID
    status: str
    items: tuple[ItemBody, ...]
    base_module: str | None
    period_start: datetime
    period_end: datetime
    ends_at: datetime
    cancels_at_period_end: bool


class Holdings(ResponseModel):
    """What runs now, the base's subscription first."""

    subscriptions: tuple[SubscriptionBody, ...]


class Cancellation(RequestModel):
    """Without an id the subscription of the base is meant. What else was bought then waits for another base."""

    when: When
    #: Text in JSON: strict about everything else.
    subscription_id: Annotated[UUID, Field(strict=False)] | None = None


@subscriptions.get("/subscription")
@guard(CompanyAdmin())
async def show_subscription(company: Company, work: Work, now: Now) -> Holdings:
    """What the caller's company holds."""
    rows = await operations.subscriptions_of(work, company, now=now)
    return Holdings(subscriptions=tuple(_body(row) for row in rows))


@subscriptions.post("/subscription/cancel", responses=problem_statuses(404))
@guard(CompanyAdmin())
async def cancel_subscription(
    body: Cancellation, caller: Caller, company: Company, work: Work, now: Now
) -> SubscriptionBody:
    """End a subscription now, or with the period that is paid."""
    row = await operations.cancel(
        work, company, subscription_id=body.subscription_id, when=body.when, actor=caller.user_id, now=now
    )
    return _body(row)


def _body(row: Subscription) -> SubscriptionBody:
    return SubscriptionBody.model_validate(row)
