"""Facts of Checkout become one published state, in whatever order, number and company they arrive."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from contracts.envelope import Envelope, envelop
from contracts.events.checkout import Item, TrialStarted
from contracts.identifiers import CompanyId, UserId, new_id
from infra.outbox.tables import states
from infra.outbox.writer import Revision
from infra.postgres.database import Database
from services.entitlements.catalog.rules import ItemUnknownError
from services.entitlements.companies import operations
from services.entitlements.companies.rules import CompanyUnknownError, Ground, PurchaseFactData
from services.entitlements.companies.tables import Company, PurchaseFact
from tests.integration.entitlements.published import pending
from tests.unit.entitlements.purchases import (
    START,
    activated,
    at,
    canceled,
    ended,
    purchased,
    renewed,
    subscription,
    trial,
)

NOW = datetime(2026, 5, 21, 9, 0, 5, tzinfo=UTC)
TOPIC = "entitlements.companies.v1"
ADMIN = UserId(new_id())


def told(company_id: CompanyId, *facts: PurchaseFactData) -> list[Envelope[Any]]:
    return [
        envelop(
            fact,
            occurred_at=NOW,
            company_id=company_id,
            actor_user_id=None,
            epoch=1,
            version=number,
            correlation_id=new_id(),
        )
        for number, fact in enumerate(facts, start=1)
    ]


async def record(database: Database, fact: Envelope[Any]) -> Revision | None:
    async with database.unit_of_work() as work:
        return await operations.record_fact(work, fact, now=NOW)


async def entitlement(database: Database, company_id: CompanyId) -> operations.CompanyEntitlement:
    async with database.unit_of_work() as work:
        return await operations.entitlement_of(work, company_id, now=NOW)


async def test_a_trial_becomes_a_state_that_names_the_fact_it_came_from(database: Database) -> None:
    company_id = CompanyId(new_id())
    (fact,) = told(company_id, trial("one", "basic_promoter", "finance"))
    assert await record(database, fact) == Revision(TOPIC, str(company_id), 1, 1)
    state = (await pending(database, TOPIC))[str(company_id)]
    assert (state.version, state.causation_id, state.correlation_id) == (1, fact.event_id, fact.correlation_id)
    assert [(each.key, each.valid_until) for each in state.data.modules] == [("promoter", at(7)), ("finance", at(7))]
    assert (await entitlement(database, company_id)).state == state.data


async def test_a_fact_told_twice_or_changing_nothing_publishes_nothing(database: Database) -> None:
    company_id = CompanyId(new_id())
    bought, activation = told(company_id, purchased("one", "basic_venue"), activated("one", "basic_venue"))
    assert (await record(database, bought)) is not None
    assert [await record(database, each) for each in (bought, activation, activation)] == [None, None, None]
    assert (await pending(database, TOPIC))[str(company_id)].version == 1


async def test_a_purchase_of_something_unknown_leaves_no_trace(database: Database) -> None:
    company_id = CompanyId(new_id())
    unknown = TrialStarted(
        subscription_id=subscription("one"),
        items=(Item(kind="package", key="basic_agency"),),
        effective_at=START,
        trial_end=at(7),
    )
    with pytest.raises(ItemUnknownError, match="package/basic_agency"):
        await record(database, *told(company_id, unknown))
    async with database.unit_of_work() as work:
        count = select(func.count()).select_from(PurchaseFact).where(PurchaseFact.company_id == company_id)
        assert await work.scalar(count) == 0
        assert await work.get(Company, company_id) is None
    assert str(company_id) not in await pending(database, TOPIC)


HISTORY: Sequence[PurchaseFactData] = (
    trial("base", "basic_promoter", "finance"),
    purchased("base", "basic_promoter", day=5),
    activated("base", "basic_promoter", day=5),
    activated("extra", "ai", day=6),
    renewed("base", "basic_promoter", day=34, from_day=35),
    ended("extra", "ai", day=36),
    canceled("base", "basic_promoter", day=40, ends=65),
)


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_of_arrival_at_once_ends_in_one_state_and_versions_only_grow(
    database: Database, seed: int
) -> None:
    in_order, shuffled = CompanyId(new_id()), CompanyId(new_id())
    for fact in told(in_order, *HISTORY):
        await record(database, fact)
    arriving = told(shuffled, *HISTORY) * 2
    random.Random(seed).shuffle(arriving)  # noqa: S311  an order, no secret
    revisions = [each for each in await asyncio.gather(*(record(database, fact) for fact in arriving)) if each]
    assert sorted(each.version for each in revisions) == list(range(1, len(revisions) + 1))
    expected, found = await entitlement(database, in_order), await entitlement(database, shuffled)
    assert (found.state, found.kept) == (expected.state, expected.kept)
    published = (await pending(database, TOPIC))[str(shuffled)]
    assert (published.version, published.data) == (len(revisions), found.state)


async def test_a_suspension_turns_all_off_survives_purchases_and_ends_where_purchases_then_are(
    database: Database,
) -> None:
    company_id = CompanyId(new_id())
    first, second = told(company_id, trial("one", "basic_promoter"), activated("one", "basic_promoter", day=1))
    await record(database, first)

    async def switched(operation: Callable[..., Awaitable[Revision]]) -> Revision:
        async with database.unit_of_work() as work:
            return await operation(work, company_id, actor=ADMIN, now=NOW)

    suspension = Revision(TOPIC, str(company_id), 1, 2)
    assert [await switched(operations.suspend) for _ in range(2)] == [suspension, suspension]
    await record(database, second)
    state = (await pending(database, TOPIC))[str(company_id)]
    assert (state.version, state.data.status, state.data.modules) == (3, "suspended", ())
    assert (await switched(operations.restore)).version == 4
    state = (await pending(database, TOPIC))[str(company_id)]
    assert (state.actor_user_id, state.data.status) == (ADMIN, "active")
    assert [each.key for each in state.data.modules] == ["promoter"]
    assert (await entitlement(database, company_id)).state == state.data


async def test_a_state_is_published_again_as_it_was_and_an_unknown_key_not_at_all(database: Database) -> None:
    company_id = CompanyId(new_id())
    await record(database, *told(company_id, trial("one", "basic_promoter")))
    before = (await pending(database, TOPIC))[str(company_id)]
    async with database.unit_of_work() as work:
        await work.execute(delete(states).where(states.c.key == str(company_id)))
    async with database.unit_of_work() as work:
        # Long after: what is sent again is the state of its version, not a newer one under an old number.
        again = await operations.republish(work, str(company_id), now=at(300))
        assert [await operations.republish(work, key, now=NOW) for key in (str(new_id()), "company")] == [None, None]
    assert again == Revision(TOPIC, str(company_id), 1, 1)
    assert (await pending(database, TOPIC))[str(company_id)].data == before.data


async def test_nobody_suspends_a_company_core_never_heard_of(database: Database) -> None:
    with pytest.raises(CompanyUnknownError):
        async with database.unit_of_work() as work:
            await operations.suspend(work, CompanyId(new_id()), actor=ADMIN, now=NOW)


async def test_a_company_that_never_bought_is_entitled_to_nothing_and_told_why(database: Database) -> None:
    company_id = CompanyId(new_id())
    held = await entitlement(database, company_id)
    assert (held.version, held.state.status, held.state.base, held.state.modules) == (0, "none", None, ())
    async with database.unit_of_work() as work:
        assert (await operations.explain(work, company_id, "finance", now=NOW)).ground is Ground.NO_BASE
