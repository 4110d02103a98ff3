from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.events.checkout import SubscriptionCanceled, SubscriptionEnded
from contracts.identifiers import CompanyId, UserId
from contracts.topics import TOPICS
from infra.outbox.writer import publish_fact
from services.checkout.subscriptions import rules
from services.checkout.subscriptions.tables import Customer, Subscription, lock_customer, running

SUBSCRIPTIONS: Final = next(topic for topic in TOPICS if topic.name == "checkout.subscriptions.v1")


async def subscriptions_of(work: AsyncSession, company_id: CompanyId, *, now: datetime) -> list[Subscription]:
    """What a company holds now, the base's subscription first."""
    return [row for row in await running(work, company_id) if row.held().is_live(now)]


async def cancel(
    work: AsyncSession,
    company_id: CompanyId,
    *,
    subscription_id: UUID | None,
    when: rules.When,
    actor: UserId,
    now: datetime,
) -> Subscription:
    """End a subscription now or with its period; without an id the base's. Raises SubscriptionUnknownError.

    Asked again, it changes nothing.
    """
    await lock_customer(work, company_id, now)
    rows = {row.id: row for row in await running(work, company_id, locked=True)}
    target = rules.chosen(rules.live_of((row.held() for row in rows.values()), now), subscription_id)
    row = rows[target.id]
    if when == "period_end" and row.cancels_at_period_end:
        return row
    instant = rules.effective_at(now, row.effective_at)
    row.ends_at = rules.cancellation(target, when, now)
    row.cancels_at_period_end = when == "period_end"
    row.effective_at, row.version = instant, row.version + 1
    await publish_fact(
        work,
        SUBSCRIPTIONS,
        SubscriptionCanceled(
            subscription_id=row.id,
            items=tuple(each.item for each in row.items),
            effective_at=instant,
            ends_at=instant if when == "now" else row.ends_at,
        ),
        company_id=company_id,
        version=row.version,
        occurred_at=now,
        actor_user_id=actor,
    )
    if when == "now":
        await _end(work, row, instant, now=now, actor=actor)
    return row


async def end_lapsed(work: AsyncSession, *, now: datetime, rows_max: int = 100) -> int:
    """Close subscriptions whose time is over, and tell it; returns how many. Access has ended by itself before."""
    lapsed = await work.scalars(
        select(Subscription)
        .join(Customer, Customer.company_id == Subscription.company_id)
        .where(Subscription.status != rules.SubscriptionStatus.CANCELED, Subscription.ends_at <= now)
        .order_by(Subscription.ends_at)
        .limit(rows_max)
        # Who is buying or canceling right now goes first; the next run finds what is then left.
        .with_for_update(skip_locked=True, of=[Subscription, Customer])
    )
    rows = list(lapsed)
    for row in rows:
        await _end(work, row, rules.effective_at(row.ends_at, row.effective_at), now=now)
    return len(rows)


async def _end(
    work: AsyncSession, row: Subscription, instant: datetime, *, now: datetime, actor: UserId | None = None
) -> None:
    row.status = rules.SubscriptionStatus.CANCELED
    row.effective_at, row.version = instant, row.version + 1
    await publish_fact(
        work,
        SUBSCRIPTIONS,
        SubscriptionEnded(subscription_id=row.id, items=tuple(each.item for each in row.items), effective_at=instant),
        company_id=CompanyId(row.company_id),
        version=row.version,
        occurred_at=now,
        actor_user_id=actor,
    )
