from typing import Annotated, Literal

import structlog
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis.request import Now, Work, component
from chassis.routing import ResponseModel, problem_statuses, router
from contracts.payload import AmountMinor, Currency, Instant
from middleware.guards import Public, guard
from services.checkout.manifest import MANIFEST
from services.checkout.settings import CheckoutSettings
from services.checkout.webhooks import operations, rules

webhooks = router(prefix=MANIFEST.route_group, tag="webhooks")

_log = structlog.get_logger("kisum.checkout")

_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,120}$")]


class _Report(BaseModel):
    """A body of somebody else's: fields this reader does not know are passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class PaymentOfProvider(_Report):
    reference: _Id
    amount_minor: AmountMinor
    currency: Currency


class EventOfProvider(_Report):
    id: _Id
    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,120}$")]
    created_at: Instant
    data: PaymentOfProvider


class Received(ResponseModel):
    """A duplicate is an event id seen before; ignored is an event that changes nothing."""

    outcome: Literal["processed", "duplicate", "ignored"]


@webhooks.post("/webhooks/offline", responses=problem_statuses(401, 404, 409, 422, 503))
@guard(Public("the signature is the proof"))
async def receive_offline(
    request: Request,
    work: Work,
    now: Now,
    settings: Annotated[CheckoutSettings, component(CheckoutSettings)],
) -> Received:
    """What the offline payment provider reports. The body is JSON, verified as raw bytes before it is parsed."""
    body = await request.body()
    secret = settings.webhook_secret.get_secret_value()
    rules.verify(request.headers.get(rules.SIGNATURE_HEADER), body, secret=secret, now=now)
    try:
        event = EventOfProvider.model_validate_json(body)
    except ValidationError as refused:
        faults = "; ".join(f"/{'/'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in refused.errors())
        raise rules.WebhookMalformedError(faults) from None
    rules.check_reported_at(event.created_at, now)
    outcome = await operations.receive(
        work,
        operations.PaymentReport(
            provider="offline",
            event_id=event.id,
            type=event.type,
            created_at=event.created_at,
            reference=event.data.reference,
            amount_minor=event.data.amount_minor,
            currency=event.data.currency,
        ),
        now=now,
    )
    _log.info("webhook", provider="offline", event_id=event.id, type=event.type, outcome=outcome.value)
    return Received(outcome=outcome.value)
