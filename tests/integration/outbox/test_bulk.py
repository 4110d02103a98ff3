"""What is published by the thousand: in chunks, and never more than one of them before what somebody waits for."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import CompanyId
from infra.kafka.partitioner import partition_of
from infra.outbox import leader
from infra.outbox.bulk import CHUNK_ROWS_MAX, in_chunks
from infra.outbox.log import Log, Sent
from infra.outbox.store import Row
from infra.outbox.tables import states
from infra.outbox.writer import Lane
from infra.postgres.database import Database, DatabaseUnavailableError
from infra.tasks import end_tasks
from services.auth.app import service as auth
from services.auth.jobs import top_up_superadmins
from services.auth.memberships.tables import Membership
from services.auth.projections.operations import apply_entitlement
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.harness.waiting import wait_until
from tests.integration.auth.published import entitled, new_company, new_person
from tests.integration.outbox.parts import MEMBERSHIPS, Owner, drained, key_of, running

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)


async def test_what_is_urgent_is_behind_one_chunk_at_most(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    sending, go_on = asyncio.Event(), asyncio.Event()

    class Held(Log):
        async def send(self, rows: Sequence[Row]) -> list[Sent]:
            if any(row.topic == MEMBERSHIPS.name for row in rows):
                sending.set()
                await go_on.wait()
            return await super().send(rows)

    monkeypatch.setattr(leader, "Log", Held)
    together = [n for n in range(9000) if partition_of(key_of(n).encode(), MEMBERSHIPS.partitions) == 0]
    async with owner.database.unit_of_work() as work:
        for number in together[1:1001]:
            await owner.write_in(work, number, lane=Lane.BULK)
    async with running(owner.relay()):
        async with asyncio.timeout(20):
            await sending.wait()
        await owner.write(together[0], "removed")
        go_on.set()
        await drained(owner)
    order = [record.key.decode() for record in await owner.log_of(MEMBERSHIPS.name)]
    assert len(order) == 1001
    assert order.index(key_of(together[0])) <= CHUNK_ROWS_MAX


async def test_a_bulk_operation_goes_on_while_less_than_a_chunk_of_its_rows_is_pending(owner: Owner) -> None:
    pending_before, tries = [], 0

    async def write(work: AsyncSession, reached: int | None) -> int | None:
        nonlocal tries
        tries += 1
        first = reached or 0
        pending_before.append(await work.scalar(select(func.count()).select_from(states)) or 0)
        for number in range(first, first + CHUNK_ROWS_MAX):
            await owner.write_in(work, number, lane=Lane.BULK)
        if tries == 2:
            raise DatabaseUnavailableError
        return first + CHUNK_ROWS_MAX if first < 4 * CHUNK_ROWS_MAX else None

    task = asyncio.create_task(in_chunks(owner.database, write))
    try:
        await wait_until(owner.pending, lambda n: n == CHUNK_ROWS_MAX, describe="the first chunk")
        async with running(owner.relay()):
            async with asyncio.timeout(60):
                await task
            await drained(owner)
    finally:
        await end_tasks(task)
    assert len(pending_before) == 6
    assert max(pending_before) < CHUNK_ROWS_MAX
    assert set((await owner.last_states()).values()) == {(1, "active")}
    assert len(await owner.last_states()) == 5 * CHUNK_ROWS_MAX


async def test_a_superadmin_whose_membership_would_be_too_large_holds_up_nobody(runtime: Runtime) -> None:
    described = await service_database(runtime, auth)
    database = Database(described.url(runtime.administrator_url), application_name="test")
    try:
        companies = []
        for _ in range(3):
            async with database.unit_of_work() as work:
                company, founder = await new_company(work)
                other = await new_person(work)
                row = {"company_id": company, "user_id": other, "status": "active", "superadmin": True}
                work.add(Membership(**row, version=1, created_at=NOW, published=True))
                await apply_entitlement(work, entitled(company, ("promoter", "finance")))
                companies.append((company, founder, other))
        first, full, _ = companies[0]
        async with database.unit_of_work() as work:
            await fill(work, first, full)
        async with asyncio.timeout(30):
            await top_up_superadmins(database, lambda: NOW)
        async with database.unit_of_work() as work:
            rows = await work.execute(
                text("select company_id, user_id, count(*) from granted_permissions group by company_id, user_id")
            )
            given = {(company, user): count for company, user, count in rows}
            everybody = {(company, user) for company, founder, other in companies for user in (founder, other)}
            assert given.keys() == everybody - {(first, full)}
            assert await work.scalar(text("select version from memberships where user_id = :id"), {"id": full}) == 1
    finally:
        await database.close()


async def fill(work: AsyncSession, company: CompanyId, user: Any) -> None:
    """Give somebody scopes that leave no room for anything else in an event."""
    owner = {"company": company, "user": user, "now": NOW}
    scopes = json.dumps({"event": [f"{number:0100}" for number in range(2600)]})
    await work.execute(
        text(
            "insert into granted_modules (company_id, user_id, module, scopes, granted_at)"
            " values (:company, :user, 'finance', cast(:scopes as jsonb), :now)"
        ),
        {**owner, "scopes": scopes},
    )
    await work.execute(
        text(
            "insert into top_ups (company_id, user_id, module, key, given_at)"
            " select :company, :user, 'finance', key, :now from permissions where module = 'finance' limit 1"
        ),
        owner,
    )
