from datetime import datetime
from typing import Annotated

from fastapi import BackgroundTasks, Path

from chassis.request import Now, Work, component
from chassis.routing import ResponseModel, problem_statuses, router
from middleware.guards import Public, guard
from services.checkout.manifest import MANIFEST
from services.checkout.offline_provider import operations
from services.checkout.offline_provider.rules import PaymentStatus

offline_provider = router(prefix=MANIFEST.route_group, tag="offline payment provider")

Reports = Annotated[operations.Courier, component(operations.Courier)]
Reference = Annotated[str, Path(pattern=r"^pay_[A-Za-z0-9_-]{32}$")]
_BUYER = Public("a provider's payment page knows its buyer by the unguessable address")


class PaymentBody(ResponseModel):
    """`amount_minor` is in the currency's minor unit; 0 asks for consent to a trial."""

    reference: str
    amount_minor: int
    currency: str
    status: str
    expires_at: datetime
    settled_at: datetime | None


@offline_provider.get("/provider/{reference}", responses=problem_statuses(404, 503))
@guard(_BUYER)
async def show_payment(reference: Reference, work: Work) -> PaymentBody:
    """What the buyer is asked to pay."""
    return PaymentBody.model_validate(await operations.payment(work, reference))


@offline_provider.post("/provider/{reference}/confirm", responses=problem_statuses(404, 409, 503))
@guard(_BUYER)
async def confirm_payment(
    reference: Reference,
    work: Work,
    now: Now,
    after: BackgroundTasks,
    courier: Reports,
) -> PaymentBody:
    """The buyer pays. The provider then reports it to Checkout, again and again until that is accepted."""
    settled = await operations.settle(work, reference, PaymentStatus.SUCCEEDED, now=now)
    after.add_task(courier.wake)
    return PaymentBody.model_validate(settled)


@offline_provider.post("/provider/{reference}/decline", responses=problem_statuses(404, 409, 503))
@guard(_BUYER)
async def decline_payment(
    reference: Reference,
    work: Work,
    now: Now,
    after: BackgroundTasks,
    courier: Reports,
) -> PaymentBody:
    """The buyer does not pay, which is reported too."""
    settled = await operations.settle(work, reference, PaymentStatus.FAILED, now=now)
    after.add_task(courier.wake)
    return PaymentBody.model_validate(settled)
