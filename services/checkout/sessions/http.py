from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import Field

from chassis.request import Caller, Company, Now, Work, component
from chassis.routing import RequestModel, ResponseModel, problem_statuses, router
from contracts.payload import Slug
from middleware.guards import ActiveMember, guard
from services.checkout.manifest import MANIFEST
from services.checkout.provider import PaymentProvider
from services.checkout.sessions import operations
from services.checkout.settings import CheckoutSettings

sessions = router(prefix=MANIFEST.route_group, tag="sessions")

_ITEMS_MAX = 20


class NewSession(RequestModel):
    """`package` is left out where add-ons are bought for a base the company has. `addons` are keys of either kind."""

    package: Slug | None = None
    addons: Annotated[list[Slug], Field(max_length=_ITEMS_MAX, default_factory=list)]
    trial: bool = False


class LineBody(ResponseModel):
    """`amount_minor` is due now, in the currency's minor unit."""

    kind: str
    key: str
    amount_minor: int


class SessionBody(ResponseModel):
    """`pay_url` is where the buyer pays. `refusal` is why a paid session could not be carried out."""

    id: UUID
    status: str
    trial: bool
    lines: tuple[LineBody, ...]
    total_minor: int
    currency: str
    payment_reference: str
    pay_url: str
    created_at: datetime
    expires_at: datetime
    settled_at: datetime | None
    subscription_id: UUID | None
    refusal: str | None


@sessions.post("/sessions", status_code=201, responses=problem_statuses(409))
@guard(ActiveMember())
async def open_session(
    body: NewSession,
    caller: Caller,
    company: Company,
    work: Work,
    now: Now,
    provider: Annotated[PaymentProvider, component(PaymentProvider)],
    settings: Annotated[CheckoutSettings, component(CheckoutSettings)],
) -> SessionBody:
    """Begin a purchase or a trial for the caller's company."""
    session = await operations.open_session(
        work,
        provider,
        company_id=company,
        opened_by=caller.user_id,
        keys=[*([body.package] if body.package else []), *body.addons],
        trial=body.trial,
        currency=settings.currency,
        lifetime=timedelta(seconds=settings.session_lifetime_seconds),
        now=now,
    )
    return SessionBody.model_validate(session)


@sessions.get("/sessions/{session_id}", responses=problem_statuses(404))
@guard(ActiveMember())
async def show_session(session_id: UUID, company: Company, work: Work) -> SessionBody:
    """A checkout session of the caller's company."""
    return SessionBody.model_validate(await operations.session_of(work, company, session_id))
