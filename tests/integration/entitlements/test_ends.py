"""The end of a base, a module or a capability is published when it happens, once, with nobody as its author."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import structlog.testing
from sqlalchemy import select, update

from contracts.identifiers import CompanyId, new_id
from infra.outbox.tables import states
from infra.outbox.writer import Lane, Revision
from infra.postgres.database import Database
from services.entitlements.app import service
from services.entitlements.companies import operations
from services.entitlements.companies.rules import PurchaseFactData
from services.entitlements.companies.tables import Company
from services.entitlements.jobs import publish_what_has_ended
from tests.harness.clock import FakeClock
from tests.harness.waiting import wait_until
from tests.integration.entitlements.published import pending
from tests.integration.entitlements.test_companies import ADMIN, NOW, TOPIC, record, told
from tests.unit.entitlements.purchases import activated, at, renewed, trial


async def company_with(database: Database, *facts: PurchaseFactData) -> CompanyId:
    company_id = CompanyId(new_id())
    for fact in told(company_id, *facts):
        await record(database, fact)
    return company_id


async def end(database: Database, now: datetime, *, limit: int = 1000) -> list[Revision | None]:
    async with database.unit_of_work() as work:
        return await operations.publish_ended(work, now=now, limit=limit)


async def state(database: Database, company_id: CompanyId) -> Any:
    return (await pending(database, TOPIC))[str(company_id)]


async def next_end(database: Database, company_id: CompanyId) -> datetime | None:
    async with database.unit_of_work() as work:
        return await work.scalar(select(Company.next_end).where(Company.id == company_id))


async def test_a_base_ends_with_everything_and_is_told_without_an_author(database: Database) -> None:
    company_id = await company_with(database, trial("one", "basic_promoter", "finance"))
    assert await next_end(database, company_id) == at(7)
    await end(database, at(7) - timedelta(microseconds=1))
    assert (await state(database, company_id)).version == 1
    assert Revision(TOPIC, str(company_id), 1, 2) in await end(database, at(7))
    envelope = await state(database, company_id)
    assert (envelope.version, envelope.actor_user_id, envelope.occurred_at) == (2, None, at(7))
    assert (envelope.data.status, envelope.data.base, envelope.data.modules) == ("ended", None, ())
    assert await next_end(database, company_id) is None
    async with database.unit_of_work() as work:
        assert await work.scalar(select(states.c.lane).where(states.c.key == str(company_id))) == Lane.INTERACTIVE


async def test_each_end_is_told_once_however_often_and_by_however_many(database: Database) -> None:
    company_id = await company_with(database, trial("one", "basic_promoter"))
    for found in await asyncio.gather(*(end(database, at(7)) for _ in range(8))):
        assert found.count(Revision(TOPIC, str(company_id), 1, 2)) <= 1
    await end(database, at(70))
    assert (await state(database, company_id)).version == 2


async def test_a_row_that_is_being_changed_is_passed_over_and_told_the_next_time(database: Database) -> None:
    company_id = await company_with(database, trial("one", "basic_promoter"))
    ended = Revision(TOPIC, str(company_id), 1, 2)
    async with database.unit_of_work() as changing:
        await changing.get(Company, company_id, with_for_update=True)
        assert ended not in await end(database, at(7))
    assert ended in await end(database, at(7))


async def test_a_module_and_a_capability_end_before_their_base(database: Database) -> None:
    company_id = await company_with(
        database,
        activated("base", "basic_promoter", day=3),
        activated("addon", "venue_directory", day=2),
        activated("module", "ai", day=1),
    )
    found = []
    for day in (31, 32, 33):
        assert await next_end(database, company_id) == at(day)
        await end(database, at(day))
        data = (await state(database, company_id)).data
        found.append((data.status, [each.key for each in data.modules], data.capabilities))
    assert found == [
        ("active", ["promoter"], ("venue_directory",)),
        ("active", ["promoter"], ()),
        ("ended", [], ()),
    ]


async def test_what_is_renewed_in_time_does_not_end(database: Database) -> None:
    company_id = await company_with(
        database, activated("one", "basic_promoter"), renewed("one", "basic_promoter", day=29, from_day=30)
    )
    assert await next_end(database, company_id) == at(60)
    await end(database, at(30))
    assert (await state(database, company_id)).version == 2


async def test_a_base_that_ended_comes_back_with_its_renewal(database: Database) -> None:
    company_id = await company_with(database, activated("one", "basic_promoter", "finance"))
    await end(database, at(30))
    (late,) = told(company_id, renewed("one", "basic_promoter", "finance", day=31, from_day=30))
    await record(database, late)
    envelope = await state(database, company_id)
    assert (envelope.version, envelope.data.status) == (3, "active")
    assert [each.key for each in envelope.data.modules] == ["promoter", "finance"]
    assert await next_end(database, company_id) == at(60)


async def test_a_suspended_company_stays_suspended_when_its_base_ends(database: Database) -> None:
    company_id = await company_with(database, trial("one", "basic_promoter"))
    async with database.unit_of_work() as work:
        await operations.suspend(work, company_id, actor=ADMIN, now=NOW)
    await end(database, at(7))
    envelope = await state(database, company_id)
    assert (envelope.version, envelope.data.status, envelope.data.base) == (3, "suspended", None)


async def test_a_company_from_before_ends_were_kept_is_looked_at_and_published_only_if_something_ended(
    database: Database,
) -> None:
    company_id = await company_with(database, activated("one", "basic_promoter"))
    async with database.unit_of_work() as work:
        await work.execute(update(Company).where(Company.id == company_id).values(next_end=NOW))
    assert None in await end(database, NOW)
    assert (await state(database, company_id)).version == 1
    assert await next_end(database, company_id) == at(30)


async def test_many_ends_at_once_are_told_some_at_a_time(database: Database) -> None:
    for _ in range(5):
        await company_with(database, trial("one", "basic_venue"))
    await end(database, at(6.9))
    found = [len(await end(database, at(7), limit=2)) for _ in range(4)]
    assert found[0] == found[1] == 2
    assert found[-1] == 0 or sum(found) >= 5


async def test_the_job_tells_all_that_has_ended_and_logs_each_revision(database: Database) -> None:
    companies = [await company_with(database, trial("one", "basic_artist")) for _ in range(3)]
    with structlog.testing.capture_logs() as lines:
        await publish_what_has_ended(database, FakeClock(at(7)))
    ended = [line["revision"] for line in lines if line["event"] == "an entitlement has ended"]
    assert {f"{TOPIC}:{company_id}:1:2" for company_id in companies} <= set(ended)
    assert len(set(ended)) == len(ended)
    assert await end(database, at(7)) == []


async def test_it_is_among_the_jobs_of_the_service(database: Database) -> None:
    """Within about a second of the end, without anybody's request."""
    company_id = await company_with(database, trial("one", "basic_vendor"))
    clock = FakeClock(at(6.9))

    async def status() -> str:
        return str((await state(database, company_id)).data.status)

    jobs = [asyncio.create_task(job({}, database, clock)) for job in service.jobs]
    try:
        assert await status() == "trialing"
        clock.now = at(7)
        await wait_until(status, lambda status: status == "ended", describe="the end is told", timeout_seconds=10)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
