from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import CompanyId, UserId, new_id
from services.checkout.projections.tables import read_catalog
from services.checkout.provider import PaymentProvider
from services.checkout.sessions import rules
from services.checkout.sessions.tables import Session, SessionLine
from services.checkout.subscriptions.rules import live_of
from services.checkout.subscriptions.tables import lock_customer, running, trials_of


async def open_session(
    work: AsyncSession,
    provider: PaymentProvider,
    *,
    company_id: CompanyId,
    opened_by: UserId,
    keys: Sequence[str],
    trial: bool,
    currency: str,
    lifetime: timedelta,
    now: datetime,
) -> Session:
    """Offer packages and add-ons to a company and prepare the payment.

    Raises ItemNotSoldError, CatalogAwaitedError, and what `sessions.rules.check` raises.
    """
    await lock_customer(work, company_id, now)
    catalog = await read_catalog(work)
    order = rules.order_of(
        [catalog.sold(key) for key in dict.fromkeys(keys)],
        trial=trial,
        held=live_of((row.held() for row in await running(work, company_id)), now),
        trials_had=await trials_of(work, company_id),
        catalog=catalog,
        currency=currency,
    )
    session_id, expires_at = new_id(), now + lifetime
    payment = await provider.create_payment(
        work,
        session_id=session_id,
        amount_minor=order.total_minor,
        currency=order.currency,
        expires_at=expires_at,
        now=now,
    )
    session = Session(
        id=session_id,
        company_id=company_id,
        opened_by=opened_by,
        status=rules.SessionStatus.OPEN,
        trial=trial,
        total_minor=order.total_minor,
        currency=order.currency,
        payment_reference=payment.reference,
        pay_url=payment.pay_url,
        created_at=now,
        expires_at=expires_at,
        lines=[
            SessionLine(position=position, kind=line.item.kind, key=line.item.key, amount_minor=line.amount_minor)
            for position, line in enumerate(order.lines)
        ],
    )
    work.add(session)
    return session


async def session_of(work: AsyncSession, company_id: CompanyId, session_id: UUID) -> Session:
    """Raises SessionUnknownError, for another company's too."""
    session = await work.get(Session, session_id)
    if session is None or session.company_id != company_id:
        raise rules.SessionUnknownError(f"The company has no checkout session {session_id}.")
    return session
