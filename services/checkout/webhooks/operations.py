"""A payment that was reported changes the session, the subscription and what Core is told, in one transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.errors import DomainError, Kind
from contracts.events.checkout import (
    PurchaseCompleted,
    PurchaseLine,
    SubscriptionActivated,
    SubscriptionRenewed,
    TrialStarted,
)
from contracts.identifiers import CompanyId, UserId, new_id
from contracts.payload import Payload
from contracts.topics import TOPICS, Topic
from infra.outbox.writer import publish_fact
from services.checkout.projections.rules import Catalog
from services.checkout.projections.tables import read_catalog
from services.checkout.sessions.rules import Period, SessionStatus, check, period_of
from services.checkout.sessions.tables import Session
from services.checkout.subscriptions.rules import Held, SubscriptionStatus, effective_at, live_of
from services.checkout.subscriptions.tables import (
    Subscription,
    SubscriptionItem,
    Trial,
    lock_customer,
    running,
    trials_of,
)
from services.checkout.webhooks import rules
from services.checkout.webhooks.tables import ProviderEvent

PURCHASES: Final = next(topic for topic in TOPICS if topic.name == "checkout.purchases.v1")
SUBSCRIPTIONS: Final = next(topic for topic in TOPICS if topic.name == "checkout.subscriptions.v1")
PAYMENT_SUCCEEDED: Final = "payment.succeeded"
PAYMENT_FAILED: Final = "payment.failed"

_log = structlog.get_logger("kisum.checkout")


@dataclass(frozen=True)
class PaymentReport:
    """A webhook that was believed. `created_at` is the provider's time, and what facts are ordered by."""

    provider: str
    event_id: str
    type: str
    created_at: datetime
    reference: str
    amount_minor: int
    currency: str


async def receive(work: AsyncSession, report: PaymentReport, *, now: datetime) -> rules.Outcome:
    """Carry out what a provider reports, once per event id.

    A payment that came too late to be possible (another base was bought meanwhile) refuses its session and is logged as
    an error: the money has to go back. Raises PaymentUnknownError or PaymentDiffersError; the provider sends it again.
    """
    if not await _remember(work, report, now):
        return rules.Outcome.DUPLICATE
    if report.type not in {PAYMENT_SUCCEEDED, PAYMENT_FAILED}:
        return await _ignore(work, report)
    session = await _locked_session(work, report.reference, now)
    if session.status != SessionStatus.OPEN:
        return await _ignore(work, report)
    if report.type == PAYMENT_FAILED:
        session.status, session.settled_at = SessionStatus.FAILED, now
        return rules.Outcome.PROCESSED
    rules.check_payment(due=(session.total_minor, session.currency), paid=(report.amount_minor, report.currency))
    await _carry_out(work, session, paid_at=report.created_at, now=now)
    return rules.Outcome.PROCESSED


async def _remember(work: AsyncSession, report: PaymentReport, now: datetime) -> bool:
    inserted = await work.execute(
        insert(ProviderEvent)
        .values(
            provider=report.provider,
            event_id=report.event_id,
            type=report.type,
            created_at=report.created_at,
            received_at=now,
            outcome=rules.Outcome.PROCESSED,
        )
        .on_conflict_do_nothing()
        .returning(ProviderEvent.event_id)
    )
    return inserted.first() is not None


async def _ignore(work: AsyncSession, report: PaymentReport) -> rules.Outcome:
    event = await work.get_one(ProviderEvent, (report.provider, report.event_id))
    event.outcome = rules.Outcome.IGNORED
    return rules.Outcome.IGNORED


async def _locked_session(work: AsyncSession, reference: str, now: datetime) -> Session:
    company_id = await work.scalar(select(Session.company_id).where(Session.payment_reference == reference))
    if company_id is None:
        raise rules.PaymentUnknownError("The reference belongs to no session of this installation.")
    # The customer before the session: the order in which everybody locks.
    await lock_customer(work, CompanyId(company_id), now)
    locked = select(Session).where(Session.payment_reference == reference).with_for_update()
    return (await work.scalars(locked)).one()


async def _carry_out(work: AsyncSession, session: Session, *, paid_at: datetime, now: datetime) -> None:
    company_id = CompanyId(session.company_id)
    catalog = await read_catalog(work)
    rows = {row.id: row for row in await running(work, company_id, locked=True)}
    items = [line.item for line in session.lines]
    try:
        base, continues = check(
            items,
            trial=session.trial,
            held=live_of((row.held() for row in rows.values()), paid_at),
            trials_had=await trials_of(work, company_id),
            catalog=catalog,
        )
    except DomainError as impossible:
        if impossible.kind is Kind.UNAVAILABLE:
            raise
        session.status, session.settled_at, session.refusal = SessionStatus.REFUSED, now, impossible.code
        _log.error(
            "paid and not possible any more: give the money back",
            session_id=str(session.id),
            company_id=str(company_id),
            total_minor=session.total_minor,
            currency=session.currency,
            reason=impossible.code,
        )
        return
    period = period_of(continues, paid_at, trial_days=_trial_days(session, catalog))
    if continues is None:
        row = _started(session, base, period)
        work.add(row)
    else:
        row = rows[continues.id]
        _continue(row, session, period)
    await work.flush()
    row.effective_at = effective_at(paid_at, row.effective_at)
    if session.trial:
        work.add_all(
            Trial(company_id=company_id, package_key=item.key, subscription_id=row.id, started_at=paid_at)
            for item in items
            if catalog.base_of(item) is not None
        )
    session.status, session.settled_at, session.subscription_id = SessionStatus.COMPLETED, now, row.id
    await _tell(work, session, row, continues, period, now=now)


def _trial_days(session: Session, catalog: Catalog) -> int | None:
    if not session.trial:
        return None
    return max(catalog.packages[line.key].trial_days for line in session.lines if catalog.base_of(line.item))


def _started(session: Session, base: str | None, period: Period) -> Subscription:
    return Subscription(
        id=new_id(),
        company_id=session.company_id,
        status=SubscriptionStatus.TRIALING if session.trial else SubscriptionStatus.ACTIVE,
        base_module=base,
        started_at=period.start,
        anchor_at=period.anchor,
        period_start=period.start,
        period_end=period.end,
        ends_at=period.end,
        effective_at=period.start,
        version=1,
        items=_items(session),
    )


def _continue(row: Subscription, session: Session, period: Period) -> None:
    row.status = SubscriptionStatus.ACTIVE
    row.anchor_at, row.period_start = period.anchor, period.start
    row.period_end = row.ends_at = period.end
    row.cancels_at_period_end = False
    row.version += 1
    wanted = {(item.kind, item.key): item for item in _items(session)}
    kept = [item for item in row.items if wanted.pop((item.kind, item.key), None) is not None]
    row.items = [*kept, *wanted.values()]


def _items(session: Session) -> list[SubscriptionItem]:
    return [SubscriptionItem(kind=line.kind, key=line.key) for line in session.lines]


async def _tell(
    work: AsyncSession, session: Session, row: Subscription, continues: Held | None, period: Period, *, now: datetime
) -> None:
    items = tuple(line.item for line in session.lines)

    async def publish(topic: Topic, fact: Payload, version: int) -> None:
        await publish_fact(
            work,
            topic,
            fact,
            company_id=CompanyId(session.company_id),
            version=version,
            occurred_at=now,
            actor_user_id=UserId(session.opened_by),
            correlation_id=session.id,
        )

    if session.trial:
        started = TrialStarted(subscription_id=row.id, items=items, effective_at=row.effective_at, trial_end=period.end)
        await publish(SUBSCRIPTIONS, started, row.version)
        return
    purchase = PurchaseCompleted(
        purchase_id=session.id,
        subscription_id=row.id,
        lines=tuple(
            PurchaseLine(kind=line.item.kind, key=line.key, amount_minor=line.amount_minor) for line in session.lines
        ),
        total_minor=session.total_minor,
        currency=session.currency,
        completed_at=row.effective_at,
        period_start=period.start,
        period_end=period.end,
    )
    await publish(PURCHASES, purchase, 1)
    is_renewal = continues is not None and continues.status is SubscriptionStatus.ACTIVE
    fact = (SubscriptionRenewed if is_renewal else SubscriptionActivated)(
        subscription_id=row.id,
        items=items,
        effective_at=row.effective_at,
        period_start=period.start,
        period_end=period.end,
    )
    await publish(SUBSCRIPTIONS, fact, row.version)
