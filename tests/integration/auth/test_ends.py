"""What was given for a time is taken away at its end, once, and told with nobody as its author."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog.testing
from sqlalchemy import func, select, text

from infra.outbox.tables import states
from infra.outbox.writer import Lane
from infra.postgres.database import Database
from services.auth.app import service
from services.auth.jobs import end_what_has_ended
from services.auth.memberships import operations
from services.auth.memberships.tables import DelegationRow, GrantedPermission, Membership
from tests.harness.clock import FakeClock
from tests.harness.waiting import wait_until
from tests.integration.auth.published import MEMBERSHIPS, NOW, new_person
from tests.integration.auth.test_grants import READ, WRITE, Company, company_with
from tests.unit.chassis.test_application import SETTINGS

SOON = NOW + timedelta(hours=1)


@pytest.fixture
async def company(database: Database) -> Company:
    return await company_with(database, "promoter", "finance")


async def end(database: Database, now: datetime, *, limit: int = 50) -> list[operations.EndedGrants]:
    async with database.unit_of_work() as work:
        return await operations.end_grants(work, now=now, limit=limit)


async def delegate(company: Company, valid_until: datetime | None, module: str = "finance") -> None:
    async with company.database.unit_of_work() as work:
        work.add(
            DelegationRow(
                company_id=company.id,
                user_id=company.colleague,
                module=module,
                permissions=[READ],
                scopes={"event": "*"},
                may_delegate=False,
                valid_until=valid_until,
                granted_by=company.founder,
                granted_at=NOW,
            )
        )


async def test_a_permission_ends_when_it_ends_and_is_told_without_an_author(company: Company) -> None:
    await company.give({READ: None, WRITE: SOON})
    before = await company.published(company.colleague)
    assert await end(company.database, SOON - timedelta(microseconds=1)) == []
    (ended,) = await end(company.database, SOON)
    envelope = await company.published(company.colleague)
    assert str(ended.revision) == f"{MEMBERSHIPS}:{company.id}/{company.colleague}:1:{before.version + 1}"
    assert (ended.permissions, ended.delegations) == ((WRITE,), ())
    assert (envelope.version, envelope.actor_user_id, envelope.occurred_at) == (before.version + 1, None, SOON)
    (grant,) = envelope.data.modules
    assert grant.permissions == {READ: None}
    async with company.database.unit_of_work() as work:
        lanes = await work.scalars(select(states.c.lane).where(states.c.key.contains(str(company.colleague))))
        assert list(lanes) == [Lane.INTERACTIVE]
        keys = await work.scalars(select(GrantedPermission.key).where(GrantedPermission.user_id == company.colleague))
        assert list(keys) == [READ]


async def test_what_ended_is_taken_once_however_often_and_by_however_many(company: Company) -> None:
    await people_with_an_end(company, 20)
    taken: list[operations.EndedGrants] = []

    async def take_one_after_another() -> None:
        while ended := await end(company.database, SOON, limit=1):
            taken.extend(ended)

    await asyncio.gather(*(take_one_after_another() for _ in range(8)))
    # Who met another at its row has stopped.
    taken += await end(company.database, SOON)
    assert [each.permissions for each in taken] == [(WRITE,)] * 20
    assert await end(company.database, SOON + timedelta(days=1)) == []


async def test_one_that_another_was_done_with_meanwhile_is_not_published_again(company: Company) -> None:
    before = await company.published(company.colleague)
    async with company.database.unit_of_work() as work:
        membership = await work.get_one(Membership, (company.id, company.colleague), with_for_update=True)
        assert await operations._end_grants_of(work, membership, SOON) is None
    assert await company.published(company.colleague) == before


async def test_what_ends_later_stays_until_then(company: Company) -> None:
    await company.give({READ: SOON + timedelta(seconds=1), WRITE: SOON})
    await delegate(company, SOON + timedelta(seconds=1))
    assert [each.permissions for each in await end(company.database, SOON)] == [(WRITE,)]
    (ended,) = await end(company.database, SOON + timedelta(seconds=1))
    assert (ended.permissions, ended.delegations) == ((READ,), ("finance",))


async def test_a_delegation_ends_for_a_member_who_was_given_nothing_else(company: Company) -> None:
    await delegate(company, SOON)
    (ended,) = await end(company.database, SOON)
    assert (ended.permissions, ended.delegations) == ((), ("finance",))


async def test_a_delegation_ends_too_and_with_a_permission_in_one_version(company: Company) -> None:
    await company.give({WRITE: SOON})
    await delegate(company, SOON)
    await delegate(company, None, module="ai")
    (ended,) = await end(company.database, SOON)
    assert (ended.permissions, ended.delegations) == ((WRITE,), ("finance",))
    assert [each.module for each in (await company.published(company.colleague)).data.delegations] == ["ai"]


async def test_a_row_that_is_being_changed_is_passed_over_and_taken_the_next_time(company: Company) -> None:
    await company.give({WRITE: SOON})
    async with company.database.unit_of_work() as changing:
        await changing.execute(
            text("select * from memberships where user_id = :user_id for update"), {"user_id": company.colleague}
        )
        assert await end(company.database, SOON) == []
    assert len(await end(company.database, SOON)) == 1


async def people_with_an_end(company: Company, count: int) -> None:
    async with company.database.unit_of_work() as work:
        for _ in range(count):
            person = await new_person(work)
            given: Any = {"actor": company.founder, "now": NOW}
            await operations.add_member(work, company.id, person, **given)
            await operations.set_modules(work, company.id, person, ["finance"], **given)
            await operations.set_permissions(work, company.id, person, "finance", {WRITE: SOON}, **given)


async def test_many_ends_at_once_are_taken_some_at_a_time(company: Company) -> None:
    await people_with_an_end(company, 7)
    assert [len(await end(company.database, SOON, limit=3)) for _ in range(4)] == [3, 3, 1, 0]


async def test_the_job_takes_all_that_has_ended_and_logs_each_revision(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.jobs._ENDED_ROWS", 2)
    await people_with_an_end(company, 5)
    with structlog.testing.capture_logs() as lines:
        await asyncio.gather(*(end_what_has_ended(company.database, FakeClock(SOON)) for _ in range(2)))
    ended = [line for line in lines if line["event"] == "grants have ended"]
    assert len({line["revision"] for line in ended}) == len(ended) == 5
    assert {line["permissions"] for line in ended} == {(WRITE,)}


async def test_it_is_among_the_jobs_of_the_service(company: Company) -> None:
    """Within about a second of the end, without anybody's request."""
    await company.give({WRITE: SOON})
    clock = FakeClock(SOON - timedelta(seconds=1))
    settings = service.settings.model_validate({**SETTINGS, "database_url": company.database._url})
    components = service.compose(settings, company.database, clock)

    async def ending() -> int:
        async with company.database.unit_of_work() as work:
            ending = select(func.count()).where(GrantedPermission.valid_until.is_not(None))
            return await work.scalar(ending) or 0

    jobs = [asyncio.create_task(job(components, company.database, clock)) for job in service.jobs]
    try:
        assert await ending() == 1
        clock.now = SOON
        await wait_until(ending, lambda count: count == 0, describe="the permission has ended", timeout_seconds=10)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
