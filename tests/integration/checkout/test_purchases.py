"""A reported payment changes session, subscription and outbox in one transaction, and once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from contracts.identifiers import CompanyId, new_id
from infra.postgres.database import Database
from services.checkout.projections.tables import CatalogRow
from services.checkout.sessions.operations import session_of
from services.checkout.sessions.rules import AlreadyHeldError, BaseMissingError, SessionUnknownError, TrialUsedError
from services.checkout.subscriptions.operations import subscriptions_of
from services.checkout.subscriptions.tables import Subscription
from services.checkout.webhooks.rules import Outcome, PaymentDiffersError, PaymentUnknownError
from services.checkout.webhooks.tables import ProviderEvent
from tests.integration.checkout.buying import BUYER, NOW, apply, bought, kinds, opened, paid, report, reread, told
from tests.unit.checkout.test_sessions import CATALOG


def a_company() -> CompanyId:
    return CompanyId(new_id())


async def holdings(database: Database, company_id: CompanyId, now: datetime = NOW) -> list[Subscription]:
    async with database.unit_of_work() as work:
        return await subscriptions_of(work, company_id, now=now)


async def test_a_trial_starts_when_it_was_confirmed_and_costs_nothing(database: Database) -> None:
    company_id = a_company()
    session = await opened(database, company_id, "basic_promoter", "finance", trial=True)
    assert (session.status, session.total_minor) == ("open", 0)
    assert await told(database, company_id) == []
    confirmed_at = NOW + timedelta(minutes=5)
    await report(database, paid(session, at=confirmed_at), now=confirmed_at + timedelta(hours=2))
    (started,) = await told(database, company_id)
    assert kinds([started]) == ["TrialStarted"]
    assert (started.data.effective_at, started.data.trial_end) == (confirmed_at, confirmed_at + timedelta(days=7))
    assert {item.key for item in started.data.items} == {"basic_promoter", "finance"}
    assert (started.actor_user_id, started.version) == (BUYER, 1)
    (subscription,) = await holdings(database, company_id, confirmed_at)
    session = await reread(database, session)
    assert (session.status, session.subscription_id) == ("completed", subscription.id)
    assert await holdings(database, company_id, confirmed_at + timedelta(days=7)) == []


async def test_a_purchase_tells_what_was_paid_and_for_how_long(database: Database) -> None:
    company_id = a_company()
    session = await bought(database, company_id, "basic_promoter", "finance", "venue_directory")
    purchase, activation = await told(database, company_id)
    assert kinds([purchase, activation]) == ["PurchaseCompleted", "SubscriptionActivated"]
    assert [(line.key, line.amount_minor) for line in purchase.data.lines] == [
        ("basic_promoter", 19900),
        ("finance", 4900),
        ("venue_directory", 1900),
    ]
    assert (purchase.data.total_minor, purchase.data.currency) == (26700, "USD")
    assert (purchase.data.purchase_id, purchase.data.subscription_id) == (session.id, session.subscription_id)
    period = (NOW, datetime(2026, 6, 21, 9, tzinfo=UTC))
    assert (purchase.data.period_start, purchase.data.period_end) == period
    assert (activation.data.period_start, activation.data.period_end) == period
    assert purchase.correlation_id == activation.correlation_id == session.id


async def test_an_event_id_is_carried_out_once_even_if_all_arrive_together(database: Database) -> None:
    company_id = a_company()
    payment = paid(await opened(database, company_id, "basic_promoter"))
    outcomes = await asyncio.gather(*(report(database, payment) for _ in range(5)))
    assert sorted(outcomes) == ["duplicate"] * 4 + ["processed"]
    assert await report(database, payment, now=NOW + timedelta(days=2)) is Outcome.DUPLICATE
    assert len(await told(database, company_id)) == 2


async def test_a_second_event_about_a_settled_session_is_remembered_and_changes_nothing(database: Database) -> None:
    company_id = a_company()
    session = await bought(database, company_id, "basic_promoter")
    late = paid(session, type="payment.failed")
    assert [await report(database, late), await report(database, late)] == [Outcome.IGNORED, Outcome.DUPLICATE]
    assert (await reread(database, session)).status == "completed"
    async with database.unit_of_work() as work:
        assert (await work.get_one(ProviderEvent, ("offline", late.event_id))).outcome == "ignored"


async def test_a_failed_payment_starts_nothing(database: Database) -> None:
    company_id = a_company()
    session = await opened(database, company_id, "basic_promoter")
    assert await report(database, paid(session, type="payment.failed")) is Outcome.PROCESSED
    assert (await reread(database, session)).status == "failed"
    assert (await told(database, company_id), await holdings(database, company_id)) == ([], [])


async def test_an_event_of_a_kind_nobody_told_us_of_is_ignored(database: Database) -> None:
    session = await opened(database, a_company(), "basic_promoter")
    assert await report(database, paid(session, type="payment.disputed")) is Outcome.IGNORED
    assert (await reread(database, session)).status == "open"


@pytest.mark.parametrize("changed", [{"amount_minor": 1}, {"currency": "EUR"}])
async def test_a_payment_of_another_amount_carries_out_nothing_and_may_be_reported_again(
    database: Database, changed: dict[str, Any]
) -> None:
    session = await opened(database, a_company(), "basic_promoter")
    payment = paid(session)
    with pytest.raises(PaymentDiffersError):
        await report(database, paid(session, event_id=payment.event_id, **changed))
    assert await report(database, payment) is Outcome.PROCESSED


async def test_a_payment_of_no_session_is_unknown(database: Database) -> None:
    session = await opened(database, a_company(), "basic_promoter")
    with pytest.raises(PaymentUnknownError):
        await report(database, paid(session, reference="pay_of_somebody_else"))


async def test_there_is_one_trial_per_company_and_package(database: Database) -> None:
    company_id = a_company()
    await bought(database, company_id, "basic_promoter", trial=True)
    after = NOW + timedelta(days=8)
    with pytest.raises(TrialUsedError):
        await opened(database, company_id, "basic_promoter", trial=True, now=after)
    await bought(database, company_id, "basic_venue", trial=True, now=after)
    await bought(database, a_company(), "basic_promoter", trial=True)


async def test_two_trials_confirmed_at_once_are_one_and_the_other_is_refused(database: Database) -> None:
    company_id = a_company()
    sessions = [await opened(database, company_id, "basic_promoter", trial=True) for _ in range(2)]
    await asyncio.gather(*(report(database, paid(session)) for session in sessions))
    found = [await reread(database, session) for session in sessions]
    assert sorted((each.status, each.refusal or "") for each in found) == [("completed", ""), ("refused", "trial_used")]
    assert kinds(await told(database, company_id)) == ["TrialStarted"]


async def test_a_base_paid_while_another_was_bought_is_refused_and_nothing_is_told_of_it(database: Database) -> None:
    company_id = a_company()
    late = await opened(database, company_id, "basic_venue")
    await bought(database, company_id, "basic_promoter")
    assert await report(database, paid(late, at=NOW + timedelta(minutes=1))) is Outcome.PROCESSED
    refused = await reread(database, late)
    assert (refused.status, refused.refusal) == ("refused", "other_base_held")
    assert len(await told(database, company_id)) == 2


async def test_an_addon_needs_a_base_bought_before_or_with_it(database: Database) -> None:
    company_id = a_company()
    with pytest.raises(BaseMissingError):
        await opened(database, company_id, "finance")
    await bought(database, company_id, "basic_promoter", trial=True)
    session = await bought(database, company_id, "finance")
    base, addon = await holdings(database, company_id)
    assert (base.base_module, addon.base_module, addon.id) == ("promoter", None, session.subscription_id)


async def test_paying_in_a_trial_goes_on_with_its_subscription_and_what_was_paid(database: Database) -> None:
    company_id = a_company()
    await bought(database, company_id, "basic_promoter", "finance", trial=True)
    paid_at = NOW + timedelta(days=2)
    await bought(database, company_id, "basic_promoter", now=paid_at)
    (subscription,) = await holdings(database, company_id, paid_at)
    assert [each.key for each in subscription.items] == ["basic_promoter"]
    started, purchase, activation = await told(database, company_id)
    assert kinds([started, purchase, activation])[2] == "SubscriptionActivated"
    assert started.aggregate_id == activation.aggregate_id == str(subscription.id)
    assert (activation.version, activation.data.period_start) == (2, paid_at)


async def test_buying_what_runs_pays_the_month_after(database: Database) -> None:
    company_id = a_company()
    await bought(database, company_id, "basic_promoter")
    with pytest.raises(AlreadyHeldError):
        await opened(database, company_id, "basic_promoter", "finance")
    await bought(database, company_id, "basic_promoter", now=NOW + timedelta(days=25))
    renewal = (await told(database, company_id))[-1]
    assert kinds([renewal]) == ["SubscriptionRenewed"]
    assert renewal.data.effective_at == NOW + timedelta(days=25)
    assert (renewal.data.period_start, renewal.data.period_end) == (
        datetime(2026, 6, 21, 9, tzinfo=UTC),
        datetime(2026, 7, 21, 9, tzinfo=UTC),
    )


async def test_another_company_s_session_is_like_one_that_does_not_exist(database: Database) -> None:
    session = await opened(database, a_company(), "basic_promoter")
    stranger = a_company()
    errors = []
    for session_id in (session.id, new_id()):
        with pytest.raises(SessionUnknownError) as refused:
            async with database.unit_of_work() as work:
                await session_of(work, stranger, session_id)
        errors.append(refused.value.detail.replace(str(session_id), "it"))
    assert errors[0] == errors[1]


async def test_two_bases_at_one_time_are_an_impossible_row(database: Database) -> None:
    company_id = a_company()
    await bought(database, company_id, "basic_promoter")
    (row,) = await holdings(database, company_id)
    with pytest.raises(IntegrityError):
        async with database.unit_of_work() as work:
            work.add(
                Subscription(
                    id=new_id(),
                    company_id=company_id,
                    status="active",
                    base_module="venue",
                    started_at=row.ends_at - timedelta(seconds=1),
                    anchor_at=row.ends_at,
                    period_start=row.ends_at,
                    period_end=row.ends_at + timedelta(days=30),
                    ends_at=row.ends_at + timedelta(days=30),
                    effective_at=NOW,
                    version=1,
                )
            )


async def test_an_older_state_of_a_catalog_row_replaces_no_newer_one(database: Database) -> None:
    price = CATALOG.prices["touring_month_usd"].model_copy(update={"key": "touring_year_usd", "interval": "year"})
    for version, epoch, amount in ((2, 1, 200), (1, 1, 100), (2, 1, 999), (1, 2, 300), (9, 1, 900)):
        await apply(database, price.model_copy(update={"amount_minor": amount}), version=version, epoch=epoch)
    async with database.unit_of_work() as work:
        row = await work.get_one(CatalogRow, ("price", "touring_year_usd"))
        assert (row.epoch, row.version, row.data["amount_minor"]) == (2, 1, 300)
        assert await work.scalar(select(func.count()).select_from(CatalogRow).where(CatalogRow.key == row.key)) == 1
