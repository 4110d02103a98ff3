from datetime import datetime, timedelta
from uuid import UUID

import pytest

from contracts.identifiers import CompanyId, new_id
from infra.postgres.database import Database
from services.checkout.subscriptions.operations import cancel, end_lapsed, subscriptions_of
from services.checkout.subscriptions.rules import SubscriptionUnknownError, When
from services.checkout.subscriptions.tables import Subscription
from tests.integration.checkout.buying import BUYER, NOW, bought, kinds, told

LATER = NOW + timedelta(days=3)


async def canceled(
    database: Database, company_id: CompanyId, when: When, subscription_id: UUID | None = None, now: datetime = LATER
) -> Subscription:
    async with database.unit_of_work() as work:
        return await cancel(work, company_id, subscription_id=subscription_id, when=when, actor=BUYER, now=now)


async def live(database: Database, company_id: CompanyId, now: datetime) -> list[UUID]:
    async with database.unit_of_work() as work:
        return [row.id for row in await subscriptions_of(work, company_id, now=now)]


async def test_a_cancellation_now_ends_the_base_at_once_and_leaves_the_addon_bought_apart(database: Database) -> None:
    company_id = CompanyId(new_id())
    base = await bought(database, company_id, "basic_promoter")
    addon = await bought(database, company_id, "finance")
    row = await canceled(database, company_id, "now")
    assert (row.id, row.status, row.ends_at) == (base.subscription_id, "canceled", LATER)
    cancellation, end = (await told(database, company_id))[-2:]
    assert kinds([cancellation, end]) == ["SubscriptionCanceled", "SubscriptionEnded"]
    assert (cancellation.data.ends_at, end.data.effective_at) == (LATER, LATER)
    assert (cancellation.version, end.version, end.actor_user_id) == (2, 3, BUYER)
    assert await live(database, company_id, LATER) == [addon.subscription_id]


async def test_an_addon_is_canceled_by_its_id_and_the_base_goes_on(database: Database) -> None:
    company_id = CompanyId(new_id())
    base = await bought(database, company_id, "basic_promoter")
    addon = await bought(database, company_id, "finance")
    await canceled(database, company_id, "now", addon.subscription_id)
    assert await live(database, company_id, LATER) == [base.subscription_id]


async def test_a_cancellation_at_the_period_s_end_is_told_once_and_paying_on_takes_it_back(database: Database) -> None:
    company_id = CompanyId(new_id())
    await bought(database, company_id, "basic_promoter")
    first = await canceled(database, company_id, "period_end")
    again = await canceled(database, company_id, "period_end", now=LATER + timedelta(days=1))
    assert (first.ends_at, again.version, again.cancels_at_period_end) == (first.period_end, first.version, True)
    assert kinds(await told(database, company_id))[-1] == "SubscriptionCanceled"
    await bought(database, company_id, "basic_promoter", now=LATER + timedelta(days=2))
    async with database.unit_of_work() as work:
        (row,) = await subscriptions_of(work, company_id, now=LATER)
    assert (row.cancels_at_period_end, row.ends_at > first.ends_at) == (False, True)
    assert kinds(await told(database, company_id))[-1] == "SubscriptionRenewed"


async def test_what_is_over_or_another_company_s_cannot_be_canceled(database: Database) -> None:
    company_id, stranger = CompanyId(new_id()), CompanyId(new_id())
    session = await bought(database, company_id, "basic_promoter", trial=True)
    for who, which, now in (
        (stranger, None, LATER),
        (stranger, session.subscription_id, LATER),
        (company_id, new_id(), LATER),
        (company_id, None, NOW + timedelta(days=7)),
    ):
        with pytest.raises(SubscriptionUnknownError):
            await canceled(database, who, "now", which, now)


async def test_a_cancellation_is_later_than_the_payment_though_the_provider_s_clock_is_ahead(
    database: Database,
) -> None:
    company_id = CompanyId(new_id())
    await bought(database, company_id, "basic_promoter", now=NOW + timedelta(seconds=2))
    await canceled(database, company_id, "now", now=NOW + timedelta(seconds=3))
    instants = [each.data.effective_at for each in (await told(database, company_id))[1:]]
    assert instants == sorted(instants)


async def test_a_subscription_nobody_paid_on_is_closed_once_at_the_instant_it_ended(database: Database) -> None:
    company_id = CompanyId(new_id())
    await bought(database, company_id, "basic_promoter", trial=True)
    over = NOW + timedelta(days=7)

    async def close(now: datetime) -> int:
        async with database.unit_of_work() as work:
            return await end_lapsed(work, now=now, rows_max=1000)

    await close(over - timedelta(microseconds=1))
    assert kinds(await told(database, company_id)) == ["TrialStarted"]
    assert await close(over + timedelta(minutes=1)) >= 1
    assert await close(over + timedelta(minutes=1)) == 0
    end = (await told(database, company_id))[-1]
    assert (kinds([end]), end.data.effective_at) == (["SubscriptionEnded"], over)
