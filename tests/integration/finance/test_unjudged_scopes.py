"""A route that forgets to judge its scope is a defect that neither answers nor leaves anything behind."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest_asyncio
from sqlalchemy import func, select

from chassis.request import Access, Now, Work
from chassis.routing import router
from contracts.identifiers import new_id
from middleware.guards import Permission, ScopeSource, guard
from services.finance.app import service
from services.finance.expenses.tables import Expense
from tests.harness.access import catalog, entitled, grant
from tests.harness.runtime import Runtime
from tests.integration.entitlements.calling import CalledService, called_service

careless = router(prefix="/api/finance", tag="test")


@careless.post("/careless", status_code=201)
@guard(Permission("finance.expenses.write", ScopeSource.BODY))
async def add_carelessly(access: Access, work: Work, now: Now) -> None:
    work.add(
        Expense(
            id=new_id(),
            company_id=access.company_id,
            description="Stage",
            amount_minor=1,
            currency="USD",
            incurred_on=date(2026, 5, 21),
            created_by=access.user_id,
            created_at=now,
        )
    )


@careless.get("/careless")
@guard(Permission("finance.expenses.read", ScopeSource.FILTER))
async def list_carelessly() -> list[str]:
    return ["everything"]


@pytest_asyncio.fixture(loop_scope="session")
async def finance(runtime: Runtime, tmp_path: Path) -> AsyncIterator[CalledService]:
    async with called_service(runtime, replace(service, routers=(careless,)), tmp_path) as called:
        yield called


async def test_an_unjudged_scope_answers_nothing_and_commits_nothing(finance: CalledService) -> None:
    person = await finance.person()
    keys = ("finance.expenses.read", "finance.expenses.write")
    finance.access.hold(catalog("finance"))
    finance.access.hold(entitled("finance"), company_id=person.company_id)
    finance.access.hold(grant(person.user_id, permissions=keys, superadmin=True), company_id=person.company_id)
    for method in ("POST", "GET"):
        answer = await finance.client.request(method, "/api/finance/careless", headers=person.headers)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    async with finance.database.unit_of_work(company_id=person.company_id) as work:
        assert await work.scalar(select(func.count()).select_from(Expense)) == 0
