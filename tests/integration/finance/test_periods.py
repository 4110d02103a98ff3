import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import new_id
from infra.postgres.database import Database
from services.finance.periods.tables import hold_open
from tests.harness.modules import Person, RunningModule
from tests.harness.waiting import wait_until
from tests.integration.finance import test_bills as bills
from tests.integration.finance import test_expenses as expenses
from tests.integration.finance.test_expenses import EXPENSE, SAID, approver, moved
from tests.integration.finance.test_income import INCOME, add_income
from tests.integration.finance.test_rates import RATES

ONE = str(new_id())
MAY, JUNE = {"month": "2026-05"}, {"month": "2026-06"}


async def close(person: Person, month: dict[str, str]) -> dict[str, Any]:
    answer = await person.call("POST", "/periods", json=month)
    assert (answer.status_code, answer.headers["ETag"]) == (201, '"1"'), answer.text
    body: dict[str, Any] = answer.json()
    return body


async def move(person: Person, period: dict[str, Any], name: str, tag: str = "*") -> Any:
    return await person.call("POST", f"/periods/{period['id']}/{name}", headers={"If-Match": tag})


async def test_a_month_is_closed_reopened_and_closed_again(finance: RunningModule) -> None:
    person = await finance.person()
    may = await close(person, MAY)
    assert [may[name] for name in ("month", "state", "moves")] == ["2026-05", "closed", ["reopen"]]
    refused = await person.call("POST", "/periods", json=MAY)
    assert (refused.status_code, refused.json()["code"]) == (409, "period_known")
    assert may["id"] in refused.json()["detail"]
    assert (await move(person, may, "close")).json()["code"] == "illegal_move"
    reopened = await move(person, may, "reopen", '"1"')
    assert (reopened.json()["state"], reopened.headers["ETag"]) == ("open", '"2"')
    assert (await move(person, may, "close", '"1"')).json()["code"] == "version_mismatch"
    assert (await move(person, may, "close", '"2"')).json()["state"] == "closed"
    june = await close(person, JUNE)
    listed = (await person.call("GET", "/periods")).json()["periods"]
    assert [each["id"] for each in listed] == [june["id"], may["id"]]
    assert (await person.call("GET", "/periods?state=open")).json()["periods"] == []
    entries = (await person.call("GET", f"/periods/{may['id']}/history")).json()["entries"]
    assert [each["action"] for each in entries] == ["close", "reopen", "close"]


async def test_nothing_is_posted_to_a_closed_month_and_nothing_changed(finance: RunningModule) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    draft, submitted, april = [await expenses.add(person) for _ in range(2)] + [
        await expenses.add(person, incurred_on="2026-04-30")
    ]
    await moved(person, decider, submitted, "submit")
    bill, approved_bill = await bills.add(person), await bills.approved(finance, person)
    income = await add_income(person)
    await close(person, MAY)
    before = [(await person.call("GET", f"/{name}")).text for name in ("expenses", "bills", "income", "rates")]
    headers = {"If-Match": "*"}
    refused = [
        await person.call("POST", "/expenses", json=EXPENSE),
        await expenses.edit(person, draft, description="Late"),
        await expenses.edit(person, draft, incurred_on="2026-04-30"),
        await expenses.edit(person, april, incurred_on="2026-05-31"),
        await expenses.move(person, draft, "submit"),
        await expenses.move(decider, submitted, "approve"),
        await expenses.move(decider, submitted, "reject", **SAID["reject"]),
        await expenses.move(person, draft, "void", **SAID["void"]),
        await person.call("POST", "/bills", json=bills.BILL),
        await bills.edit(person, bill, amount="1"),
        await bills.change(decider, bill, "approve"),
        await bills.change(person, bill, "void", said=bills.VOID),
        await bills.pay(person, approved_bill, "1", paid_on="2026-05-20"),
        await person.call("POST", "/income", json=INCOME),
        await person.call("PATCH", f"/income/{income['id']}", headers=headers, json={"amount": "1"}),
        await person.call("POST", f"/income/{income['id']}/void", headers=headers, json=bills.VOID),
        await person.call("PUT", "/rates", json=RATES),
    ]
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(409, "period_closed")}
    assert all("2026-05" in each.json()["detail"] for each in refused)
    after = [(await person.call("GET", f"/{name}")).text for name in ("expenses", "bills", "income", "rates")]
    assert before == after


async def test_what_was_spent_in_a_closed_month_is_paid_in_an_open_one(finance: RunningModule) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    expense = await expenses.add(person, incurred_on="2026-04-30")
    await moved(person, decider, expense, "submit", "approve")
    bill = await bills.approved(finance, person, billed_on="2026-04-30")
    await close(person, {"month": "2026-04"})
    assert (await bills.pay(person, bill, "1", paid_on="2026-04-30")).json()["code"] == "period_closed"
    assert (await bills.pay(person, bill, "1", paid_on="2026-05-01")).status_code == 201
    for name, said in (("schedule", {"scheduled_for": "2026-04-30"}), ("schedule", SAID["schedule"])):
        answer = await expenses.move(person, expense, name, **said)
        assert answer.status_code == (409 if said["scheduled_for"] == "2026-04-30" else 200)
    refused = await expenses.move(person, expense, "pay", paid_on="2026-04-30")
    assert (refused.status_code, refused.json()["code"]) == (409, "period_closed")
    assert (await expenses.move(person, expense, "pay", **SAID["pay"])).json()["state"] == "paid"


async def test_a_payment_planned_for_a_closed_month_is_planned_for_no_other_and_can_be_made(
    finance: RunningModule,
) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    expense = await expenses.add(person)
    await moved(person, decider, expense, "submit", "approve")
    planned = await expenses.move(person, expense, "schedule", scheduled_for="2026-04-30")
    april = await close(person, {"month": "2026-04"})
    refused = await expenses.move(person, expense, "schedule", scheduled_for="2026-05-31")
    assert (refused.status_code, refused.json()["code"]) == (409, "period_closed")
    assert "2026-04" in refused.json()["detail"]
    assert await expenses.read(person, expense) == planned.json()
    await move(person, april, "reopen")
    assert (await expenses.move(person, expense, "schedule", scheduled_for="2026-05-31")).status_code == 200
    await close(person, MAY)
    paid = await expenses.move(person, expense, "pay", **SAID["pay"])
    assert (paid.status_code, paid.json()["scheduled_for"]) == (200, "2026-05-31")


async def test_a_reopened_month_takes_postings_again_and_others_were_never_closed(finance: RunningModule) -> None:
    person, stranger = await finance.person(), await finance.person()
    may = await close(person, MAY)
    await expenses.add(person, incurred_on="2026-06-01")
    await expenses.add(person, incurred_on="2025-05-21")
    await expenses.add(stranger)
    await move(person, may, "reopen")
    await expenses.add(person)


@asynccontextmanager
async def open_work(finance: RunningModule, person: Person) -> AsyncIterator[AsyncSession]:
    """A transaction of somebody else in the company, who has not committed yet."""
    database = Database(finance.database_url, application_name="test")
    try:
        async with database.unit_of_work(company_id=person.company_id) as work:
            yield work
    finally:
        await database.close()


async def waiting(finance: RunningModule) -> int:
    """How many wait for a month."""
    connection = await asyncpg.connect(finance.database_url)
    try:
        found: int = await connection.fetchval(
            "select count(*) from pg_locks join pg_database on pg_database.oid = database"
            " where locktype = 'advisory' and not granted and datname = current_database()"
        )
        return found
    finally:
        await connection.close()


async def until_waiting(finance: RunningModule, many: int) -> None:
    await wait_until(lambda: waiting(finance), lambda found: found == many, describe=f"{many} wait for a month")


async def test_a_month_is_closed_after_what_is_being_posted_to_it(finance: RunningModule) -> None:
    person = await finance.person()
    async with open_work(finance, person) as work:
        await hold_open(work, person.company_id, date(2026, 5, 1))
        closing = asyncio.create_task(person.call("POST", "/periods", json=MAY))
        await until_waiting(finance, 1)
        assert (await person.call("GET", "/periods")).json()["periods"] == []
    assert (await closing).status_code == 201


@pytest.mark.parametrize("before", ["never closed", "reopened"])
async def test_what_comes_while_a_month_is_being_closed_finds_it_closed(finance: RunningModule, before: str) -> None:
    person = await finance.person()
    # The first row of a company is one others wait for too.
    await close(person, JUNE)
    period = await close(person, MAY) if before == "reopened" else None
    if period is not None:
        await move(person, period, "reopen")
    async with open_work(finance, person) as work:
        await hold_open(work, person.company_id, date(2026, 5, 1))
        closing = asyncio.create_task(
            person.call("POST", "/periods", json=MAY) if period is None else move(person, period, "close")
        )
        await until_waiting(finance, 1)
        posting = asyncio.create_task(person.call("POST", "/expenses", json=EXPENSE))
        await until_waiting(finance, 2)
    assert (await closing).status_code in {200, 201}
    refused = await posting
    assert (refused.status_code, refused.json()["code"]) == (409, "period_closed")
    assert (await person.call("GET", "/expenses")).json()["expenses"] == []


async def test_who_waits_for_one_month_keeps_nobody_from_closing_another(finance: RunningModule) -> None:
    """Months are locked in their order: whoever moves something from June to May and waits for May does not hold June,
    on which others could come to wait in a circle.
    """
    person = await finance.person()
    expense = await expenses.add(person, incurred_on="2026-06-01")
    async with open_work(finance, person) as work:
        await hold_open(work, person.company_id, date(2026, 5, 1))
        closing = asyncio.create_task(person.call("POST", "/periods", json=MAY))
        await until_waiting(finance, 1)
        editing = asyncio.create_task(expenses.edit(person, expense, incurred_on="2026-05-02"))
        await until_waiting(finance, 2)
        await close(person, JUNE)
    assert (await closing).status_code == 201
    assert (await editing).json()["code"] == "period_closed"


async def test_of_many_who_close_a_month_at_once_exactly_one_does(finance: RunningModule) -> None:
    person = await finance.person()
    answers = await asyncio.gather(*(person.call("POST", "/periods", json=MAY) for _ in range(4)))
    assert Counter(each.status_code for each in answers) == Counter({201: 1, 409: 3})


async def test_many_post_at_once_without_waiting_for_each_other(finance: RunningModule) -> None:
    person = await finance.person()
    async with open_work(finance, person) as work:
        await hold_open(work, person.company_id, date(2026, 5, 1))
        await expenses.add(person)


async def test_closing_is_for_who_administers_finance_in_the_whole_company(finance: RunningModule) -> None:
    person = await finance.person()
    may = await close(person, MAY)
    others = await finance.person(
        person.company_id,
        scopes={"business_unit": "*", "event": "*", "approval_limit": "*"},
        permissions=("finance.expenses.read", "finance.expenses.write", "finance.expenses.approve"),
    )
    bound = await finance.person(person.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    for somebody, code in ((others, "permission_missing"), (bound, "out_of_scope")):
        for refused in (await somebody.call("POST", "/periods", json=JUNE), await move(somebody, may, "reopen")):
            assert (refused.status_code, refused.json()["code"]) == (403, code)
        assert len((await somebody.call("GET", "/periods")).json()["periods"]) == 1


async def test_another_companys_period_is_none(finance: RunningModule) -> None:
    person, stranger = await finance.person(), await finance.person()
    may = await close(person, MAY)
    for answer in (await move(stranger, may, "reopen"), await stranger.call("GET", f"/periods/{may['id']}")):
        assert (answer.status_code, answer.json()["code"]) == (404, "period_unknown")
    assert (await stranger.call("GET", "/periods")).json()["periods"] == []


@pytest.mark.parametrize("month", ["2026-13", "2026-00", "2026-5", "0000-01", "2026-05-01", " ", None, 202605])
async def test_what_is_no_month_is_refused(finance: RunningModule, month: Any) -> None:
    person = await finance.person()
    answer = await person.call("POST", "/periods", json={"month": month})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/month")
