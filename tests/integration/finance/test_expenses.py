import asyncio
from collections import Counter
from datetime import date
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import text

from access.scopes import ScopeFilter
from chassis.paging import PageRequest
from contracts.identifiers import CompanyId, UserId, new_id
from infra.postgres.database import Database
from services.finance.expenses import operations
from services.finance.expenses.operations import ExpenseFilter
from tests.harness.access import entitled, grant
from tests.harness.modules import Person, RunningModule
from tests.harness.runtime import Runtime
from tests.harness.waiting import wait_until

ONE, OTHER = str(new_id()), str(new_id())
EXPENSE = {"description": "Stage", "amount": "1200.50", "currency": "USD", "incurred_on": "2026-05-21"}
#: What is said with a move that asks for something.
SAID: dict[str, dict[str, Any]] = {
    "reject": {"reason": "No offer was asked for"},
    "schedule": {"scheduled_for": "2026-06-01"},
    "pay": {"paid_on": "2026-06-02"},
    "void": {"reason": "Put down twice"},
}
WAY = ("submit", "approve", "schedule", "pay")


async def add(person: Person, **changed: Any) -> dict[str, Any]:
    answer = await person.call("POST", "/expenses", json={**EXPENSE, **changed})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def move(person: Person, expense: dict[str, Any], name: str, tag: str = "*", **said: Any) -> Any:
    headers = {"If-Match": tag}
    return await person.call("POST", f"/expenses/{expense['id']}/{name}", headers=headers, json=said or None)


async def edit(person: Person, expense: dict[str, Any], tag: str = "*", **changes: Any) -> Any:
    return await person.call("PATCH", f"/expenses/{expense['id']}", headers={"If-Match": tag}, json=changes)


async def in_company(finance: RunningModule, person: Person, statement: str, *arguments: Any) -> None:
    """Carry out a statement as the application's role may for this company."""
    connection = await asyncpg.connect(finance.database_url)
    try:
        async with connection.transaction():
            await connection.execute("select set_config('app.company_id', $1, true)", str(person.company_id))
            await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def tell_of(finance: RunningModule, person: Person, event_id: str, *, withheld_version: int = 0) -> None:
    """Have Finance's copy of the promoter's events hold one of this company."""
    await in_company(
        finance,
        person,
        "insert into projected_events (company_id, id, epoch, version, status, withheld_epoch, withheld_version)"
        " values ($1, $2, 1, 1, 'confirmed', 1, $3)",
        person.company_id,
        UUID(event_id),
        withheld_version,
    )


async def read(person: Person, expense: dict[str, Any]) -> Any:
    return (await person.call("GET", f"/expenses/{expense['id']}")).json()


async def approver(finance: RunningModule, person: Person, limit: Any = "*") -> Person:
    """A colleague who decides about amounts up to a limit."""
    return await finance.person(person.company_id, scopes={"business_unit": "*", "event": "*", "approval_limit": limit})


async def moved(person: Person, decider: Person, expense: dict[str, Any], *names: str) -> dict[str, Any]:
    """The expense after these moves, each made by who may."""
    body = expense
    for name in names:
        said = {**SAID.get(name, {})}
        answer = await move(decider if name in {"approve", "reject"} else person, expense, name, **said)
        assert answer.status_code == 200, answer.text
        body = answer.json()
    return body


async def test_an_expense_is_added_read_and_listed_the_newest_first(finance: RunningModule) -> None:
    person = await finance.person()
    first, second = await add(person), await add(person, amount="7", currency="JPY", description="Water")
    assert (first["amount"], second["amount"], second["created_by"]) == ("1200.50", "7", str(person.user_id))
    listed = (await person.call("GET", "/expenses")).json()
    assert listed["expenses"] == [second, first]
    assert (await person.call("GET", f"/expenses/{first['id']}")).json() == first


async def test_pages_follow_one_another_without_a_gap_and_without_a_double(finance: RunningModule) -> None:
    person = await finance.person()
    added = [(await add(person, description=f"Number {number}"))["id"] for number in range(7)]
    found: list[str] = []
    cursor = ""
    while True:
        page = (await person.call("GET", f"/expenses?limit=3{cursor}")).json()
        found += [each["id"] for each in page["expenses"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == added[::-1]


async def test_lists_are_sorted_and_filtered_by_day_unit_and_event(finance: RunningModule) -> None:
    person = await finance.person()
    await tell_of(finance, person, OTHER)
    march = await add(person, incurred_on="2026-03-01", business_unit_id=ONE)
    april = await add(person, incurred_on="2026-04-01", event_id=OTHER)
    january = await add(person, incurred_on="2026-01-31")
    for query, found in {
        "sort=incurred_on": [january, march, april],
        "sort=-incurred_on": [april, march, january],
        "sort=created": [march, april, january],
        "incurred_from=2026-03-01": [april, march],
        "incurred_before=2026-03-01": [january],
        f"business_unit_id={ONE}": [march],
        f"event_id={OTHER}": [april],
    }.items():
        assert (await person.call("GET", f"/expenses?{query}")).json()["expenses"] == found, query


async def test_an_expense_sent_twice_is_put_down_once_and_has_a_version_and_a_history(finance: RunningModule) -> None:
    person = await finance.person()
    answers = [await person.call("POST", "/expenses", json=EXPENSE, key="k") for _ in range(2)]
    assert {(answer.status_code, answer.headers["ETag"], answer.text) for answer in answers} == {
        (201, '"1"', answers[0].text)
    }
    reused = await person.call("POST", "/expenses", json={**EXPENSE, "amount": "1"}, key="k")
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    without = await person.call("POST", "/expenses", json=EXPENSE, key=None)
    assert (without.status_code, without.json()["code"]) == (400, "idempotency_key_missing")
    (listed,) = (await person.call("GET", "/expenses")).json()["expenses"]
    read = await person.call("GET", f"/expenses/{listed['id']}")
    assert (read.headers["ETag"], read.json()) == ('"1"', listed)
    (entry,) = (await person.call("GET", f"/expenses/{listed['id']}/history")).json()["entries"]
    assert (entry["action"], entry["actor_user_id"]) == ("add", str(person.user_id))
    assert entry["changes"]["amount_minor"] == {"before": None, "after": 120050}


async def test_another_companys_expense_is_no_expense(finance: RunningModule) -> None:
    person, stranger = await finance.person(), await finance.person()
    expense = await add(person)
    foreign = await stranger.call("GET", f"/expenses/{expense['id']}")
    unknown = await stranger.call("GET", f"/expenses/{uuid4()}")
    assert foreign.status_code == unknown.status_code == 404
    assert {**foreign.json(), "request_id": None} == {**unknown.json(), "request_id": None}
    assert (await stranger.call("GET", "/expenses")).json()["expenses"] == []


async def test_a_company_one_is_no_member_of_and_an_unknown_one_are_the_same_answer(finance: RunningModule) -> None:
    person, stranger = await finance.person(), await finance.person()
    foreign = await stranger.call("GET", "/expenses", company_id=person.company_id)
    unknown = await stranger.call("GET", "/expenses", company_id=uuid4())
    assert foreign.status_code == unknown.status_code == 403
    assert foreign.json()["code"] == "not_a_member"
    ignored = {"request_id": None, "age_seconds": None}
    assert {**foreign.json(), **ignored} == {**unknown.json(), **ignored}


async def test_scopes_bite_on_adding_reading_and_listing(finance: RunningModule) -> None:
    admin = await finance.person()
    mine, foreign = await add(admin, business_unit_id=ONE), await add(admin, business_unit_id=OTHER)
    unassigned = await add(admin)
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    assert [each["id"] for each in (await scoped.call("GET", "/expenses")).json()["expenses"]] == [mine["id"]]
    assert (await scoped.call("GET", f"/expenses/{mine['id']}")).status_code == 200
    for expense in (foreign, unassigned):
        refused = await scoped.call("GET", f"/expenses/{expense['id']}")
        assert (refused.status_code, refused.json()["code"]) == (403, "out_of_scope")
    await add(scoped, business_unit_id=ONE)
    for changed in ({"business_unit_id": OTHER}, {}):
        refused = await scoped.call("POST", "/expenses", json={**EXPENSE, **changed})
        assert (refused.status_code, refused.json()["code"]) == (403, "out_of_scope")
        assert refused.json()["fix"] == {"action": "ask_scope", "by": "company_admin"}


@pytest.mark.parametrize("scopes", [{"business_unit": "*"}, {"business_unit": "*", "event": ()}, {}])
async def test_a_scope_type_that_is_absent_or_empty_means_nothing(
    finance: RunningModule, scopes: dict[str, Any]
) -> None:
    person = await finance.person(scopes=scopes)
    await finance.sources.publish(
        grant((other := await finance.person(person.company_id)).user_id), company_id=person.company_id
    )
    await add(other)
    assert (await person.call("GET", "/expenses")).json()["expenses"] == []
    assert (await person.call("POST", "/expenses", json=EXPENSE)).json()["code"] == "out_of_scope"


async def test_a_revocation_bites_and_names_what_is_missing(finance: RunningModule) -> None:
    person = await finance.person()
    await add(person)
    await finance.sources.publish(
        grant(person.user_id, permissions=("finance.expenses.read",)), company_id=person.company_id
    )

    async def adding() -> tuple[int, Any]:
        answer = await person.call("POST", "/expenses", json=EXPENSE)
        return answer.status_code, answer.json()

    _, problem = await wait_until(adding, lambda state: state[0] == 403, describe="the revocation bites")
    assert (problem["code"], problem["module"], problem["permission"]) == (
        "permission_missing",
        "finance",
        "finance.expenses.write",
    )
    assert problem["fix"] == {"action": "ask_permission", "by": "company_admin"}
    assert (await person.call("GET", "/expenses")).status_code == 200


async def test_without_the_module_the_company_is_told_to_buy_it(finance: RunningModule) -> None:
    person = await finance.person()
    await finance.sources.publish(entitled(), company_id=person.company_id)

    async def listing() -> tuple[int, Any]:
        answer = await person.call("GET", "/expenses")
        return answer.status_code, answer.json()

    _, problem = await wait_until(listing, lambda state: state[0] == 403, describe="the module has ended")
    assert (problem["code"], problem["fix"]["action"]) == ("module_not_entitled", "buy_addon")


@pytest.mark.parametrize(
    ("changed", "pointer", "rule"),
    [
        ({"amount": "0.001"}, "/amount", "amount_invalid"),
        ({"amount": "0"}, "/amount", "amount_invalid"),
        ({"amount": "-5"}, "/amount", "amount_invalid"),
        ({"amount": 5}, "/amount", "string_type"),
        ({"amount": 5.5}, "/amount", "string_type"),
        ({"currency": "XXX"}, "/currency", "currency_unknown"),
        ({"currency": "usd"}, "/currency", "currency_unknown"),
        ({"currency": "DOLLAR"}, "/currency", "string_too_long"),
        ({"incurred_on": "21.05.2026"}, "/incurred_on", "date_text"),
        ({"incurred_on": "2026-02-30"}, "/incurred_on", "date_text"),
        ({"incurred_on": 1779321600}, "/incurred_on", "date_text"),
        ({"incurred_on": "2999-01-01"}, "/incurred_on", "expense_date_refused"),
        ({"business_unit_id": "one"}, "/business_unit_id", "id_text"),
        ({"description": ""}, "/description", "string_too_short"),
        ({"description": None}, "/description", "string_type"),
        ({"approved": True}, "/approved", "extra_forbidden"),
    ],
)
async def test_an_expense_that_breaks_a_rule_names_field_and_rule_and_is_not_there(
    finance: RunningModule, changed: dict[str, Any], pointer: str, rule: str
) -> None:
    person = await finance.person()
    answer = await person.call("POST", "/expenses", json={**EXPENSE, **changed})
    assert answer.status_code == 422
    assert [(error["pointer"], error["rule"]) for error in answer.json()["errors"]] == [(pointer, rule)]
    assert (await person.call("GET", "/expenses")).json()["expenses"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=x", "sort=x"])
async def test_a_list_asked_for_wrongly_is_refused(finance: RunningModule, query: str) -> None:
    person = await finance.person()
    answer = await person.call("GET", f"/expenses?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"?{query.split('=', maxsplit=1)[0]}")


async def test_the_second_fence_holds_for_whoever_forgets_the_first(finance: RunningModule) -> None:
    person = await finance.person()
    expense = await add(person)
    connection = await asyncpg.connect(finance.database_url)
    try:
        assert await connection.fetchval("select count(*) from expenses") == 0
        async with connection.transaction():
            await connection.execute("select set_config('app.company_id', $1, true)", str(person.company_id))
            assert await connection.fetchval("select count(*) from expenses") == 1
            await connection.execute("select set_config('app.company_id', $1, true)", str(uuid4()))
            assert await connection.fetchval("select count(*) from expenses") == 0
            assert await connection.execute("update expenses set description = 'x'") == "UPDATE 0"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(
                "insert into expenses select $1, company_id, null, null, 'x', 1, 'USD', now(), $1, now() "
                "from (select $2::uuid as company_id) as foreign_company",
                UUID(expense["id"]),
                CompanyId(uuid4()),
            )
    finally:
        await connection.close()


async def test_a_request_for_one_company_leaves_nothing_behind_for_the_next(finance: RunningModule) -> None:
    """The pool hands connections on; a setting of the session would be the former caller's."""
    persons = [await finance.person() for _ in range(3)]
    for _ in range(5):
        for person in persons:
            await add(person)
    for person in persons:
        assert len((await person.call("GET", "/expenses")).json()["expenses"]) == 5


async def test_an_expense_goes_its_way_from_draft_to_paid_and_each_step_is_a_version(finance: RunningModule) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    expense = await add(person)
    assert (expense["state"], expense["moves"]) == ("draft", ["submit", "void"])
    found = []
    for version, name in enumerate(WAY, 1):
        by = decider if name == "approve" else person
        answer = await move(by, expense, name, f'"{version}"', **SAID.get(name, {}))
        assert (answer.status_code, answer.headers["ETag"]) == (200, f'"{version + 1}"'), answer.text
        found.append((answer.json()["state"], answer.json()["moves"]))
    assert found == [
        ("submitted", ["approve", "reject", "void"]),
        ("approved", ["schedule", "void"]),
        ("scheduled", ["schedule", "pay", "void"]),
        ("paid", []),
    ]
    paid = await read(person, expense)
    assert (paid["submitted_by"], paid["decided_by"]) == (str(person.user_id), str(decider.user_id))
    assert (paid["scheduled_for"], paid["paid_on"]) == ("2026-06-01", "2026-06-02")
    entries = (await person.call("GET", f"/expenses/{expense['id']}/history")).json()["entries"]
    assert [each["action"] for each in entries] == [*WAY[::-1], "add"]
    assert entries[0]["changes"] == {
        "state": {"before": "scheduled", "after": "paid"},
        "paid_on": {"before": None, "after": "2026-06-02"},
    }


async def test_what_was_rejected_is_changed_and_submitted_again(finance: RunningModule) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    expense = await add(person)
    rejected = await moved(person, decider, expense, "submit", "reject")
    assert (rejected["state"], rejected["rejection_reason"]) == ("rejected", SAID["reject"]["reason"])
    assert (await edit(person, expense, amount="900")).json()["amount"] == "900.00"
    again = await moved(person, decider, expense, "submit")
    assert (again["rejection_reason"], again["decided_by"], again["decided_at"]) == (None, None, None)
    assert (await moved(person, decider, expense, "approve"))["state"] == "approved"


@pytest.mark.parametrize("before", [(), WAY[:1], WAY[:2], WAY[:3], ("submit", "reject")])
async def test_what_was_not_paid_can_be_void_and_stays_to_be_seen(
    finance: RunningModule, before: tuple[str, ...]
) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    expense = await add(person)
    void = await moved(person, decider, expense, *before, "void")
    assert (void["state"], void["void_reason"], void["moves"]) == ("void", SAID["void"]["reason"], [])
    assert (await edit(person, expense, description="Again")).json()["code"] == "expense_not_editable"
    assert await read(person, expense) == void


async def test_what_was_paid_is_never_void_and_never_changed(finance: RunningModule) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    expense = await add(person)
    paid = await moved(person, decider, expense, *WAY)
    refused = [await move(person, expense, "void", **SAID["void"]), await edit(person, expense, amount="1")]
    assert [(each.status_code, each.json()["code"]) for each in refused] == [
        (409, "illegal_move"),
        (409, "expense_not_editable"),
    ]
    assert await read(person, expense) == paid


async def test_an_illegal_move_names_what_can_be_done_and_changes_nothing(finance: RunningModule) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    expense = await add(person)
    for name in ("approve", "reject", "schedule", "pay"):
        refused = await move(decider, expense, name, **SAID.get(name, {}))
        assert (refused.status_code, refused.json()["code"]) == (409, "illegal_move")
        assert "what can be done: submit, void" in refused.json()["detail"]
    assert await read(person, expense) == expense


@pytest.mark.parametrize(
    ("name", "said", "pointer", "rule"),
    [
        ("reject", {}, "/reason", "missing"),
        ("reject", {"reason": " "}, "/reason", "string_too_short"),
        ("void", {"reason": "x" * 501}, "/reason", "string_too_long"),
        ("schedule", {}, "/scheduled_for", "missing"),
        ("schedule", {"scheduled_for": "2999-01-01"}, "/scheduled_for", "expense_schedule_refused"),
        ("pay", {"paid_on": "2999-01-01"}, "/paid_on", "expense_payment_refused"),
    ],
)
async def test_a_move_that_says_something_wrong_names_the_field(
    finance: RunningModule, name: str, said: dict[str, Any], pointer: str, rule: str
) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    expense = await add(person)
    before = {"reject": WAY[:1], "schedule": WAY[:2], "pay": WAY[:3]}.get(name, ())
    state = await moved(person, decider, expense, *before) if before else expense
    answer = await person.call("POST", f"/expenses/{expense['id']}/{name}", headers={"If-Match": "*"}, json=said)
    if name == "reject":
        answer = await decider.call("POST", f"/expenses/{expense['id']}/reject", headers={"If-Match": "*"}, json=said)
    assert answer.status_code == 422, answer.text
    assert [(error["pointer"], error["rule"]) for error in answer.json()["errors"]] == [(pointer, rule)]
    assert await read(person, expense) == state


async def test_an_edit_says_only_what_is_different_and_the_amount_keeps_its_currency(finance: RunningModule) -> None:
    person = await finance.person()
    expense = await add(person, vendor_id=ONE)
    edited = await edit(person, expense, '"1"', amount="7.5", vendor_id=None, agency_id=OTHER)
    assert edited.headers["ETag"] == '"2"'
    expected = {**expense, "amount": "7.50", "vendor_id": None, "agency_id": OTHER, "version": 2}
    assert edited.json() == expected
    assert (await edit(person, expense, currency="EUR")).json()["amount"] == "7.50"
    refused = await edit(person, expense, currency="JPY")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/amount")
    assert (await edit(person, expense, amount="7", currency="JPY")).json()["amount"] == "7"
    assert (await edit(person, expense)).headers["ETag"] == '"4"'
    stale = await edit(person, expense, '"2"', description="Late")
    assert (stale.status_code, stale.json()["code"]) == (412, "version_mismatch")
    unnamed = await person.call("PATCH", f"/expenses/{expense['id']}", json={"description": "x"})
    assert (unnamed.status_code, unnamed.json()["code"]) == (428, "precondition_required")


async def test_scopes_bite_on_changing_and_on_every_move(finance: RunningModule) -> None:
    admin = await finance.person()
    decider = await approver(finance, admin)
    mine, foreign = await add(admin, business_unit_id=ONE), await add(admin, business_unit_id=OTHER)
    scoped = await finance.person(
        admin.company_id, scopes={"business_unit": (ONE,), "event": "*", "approval_limit": "*"}
    )
    await moved(admin, decider, foreign, "submit")
    refused = [await edit(scoped, mine, business_unit_id=OTHER), await edit(scoped, foreign, description="Ours")]
    refused += [await move(scoped, foreign, name, **SAID.get(name, {})) for name in (*WAY, "reject", "void")]
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(403, "out_of_scope")}
    assert (await edit(scoped, mine, description="Ours")).status_code == 200


async def test_lists_are_narrowed_by_state_persons_and_what_an_expense_is_of(finance: RunningModule) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    category = (await person.call("POST", "/categories", json={"name": "Stage"})).json()["id"]
    draft = await add(person, category_id=category)
    of_vendor = await add(decider, vendor_id=ONE)
    paid = await add(person, agency_id=OTHER, incurred_on="2026-05-01")
    await moved(person, decider, paid, *WAY)
    for query, found in {
        "state=draft": {draft["id"], of_vendor["id"]},
        "state=paid&state=draft": {draft["id"], of_vendor["id"], paid["id"]},
        "state=void": set(),
        f"category_id={category}": {draft["id"]},
        f"vendor_id={ONE}": {of_vendor["id"]},
        f"agency_id={OTHER}": {paid["id"]},
        f"created_by={person.user_id}": {draft["id"], paid["id"]},
        f"submitted_by={person.user_id}": {paid["id"]},
        f"decided_by={decider.user_id}": {paid["id"]},
        "scheduled_from=2026-06-01&scheduled_before=2026-06-02": {paid["id"]},
        "scheduled_before=2026-06-01": set(),
        "paid_from=2026-06-02": {paid["id"]},
        "paid_before=2026-06-02": set(),
    }.items():
        listed = (await person.call("GET", f"/expenses?{query}")).json()["expenses"]
        assert {each["id"] for each in listed} == found, query


async def test_of_two_decisions_at_once_exactly_one_is_made(finance: RunningModule) -> None:
    person = await finance.person()
    deciders = [await approver(finance, person) for _ in range(2)]
    for tag, others in (('"2"', 412), ("*", 409)):
        for names in (("approve", "approve"), ("approve", "reject")):
            expense = await add(person)
            await moved(person, deciders[0], expense, "submit")
            answers = await asyncio.gather(
                *(
                    move(decider, expense, name, tag, **SAID.get(name, {}))
                    for decider, name in zip(deciders, names, strict=True)
                )
            )
            assert Counter(each.status_code for each in answers) == Counter([200, others])
            (won,) = (each.json() for each in answers if each.status_code == 200)
            assert await read(person, expense) == won
            entries = (await person.call("GET", f"/expenses/{expense['id']}/history")).json()["entries"]
            assert len(entries) == 3


async def test_an_expense_sent_many_times_at_once_is_put_down_once(finance: RunningModule) -> None:
    person = await finance.person()
    answers = await asyncio.gather(*(person.call("POST", "/expenses", json=EXPENSE, key="k") for _ in range(6)))
    assert {(each.status_code, each.text) for each in answers} == {(201, answers[0].text)}
    assert (await person.call("GET", "/expenses")).json()["expenses"] == [answers[0].json()]


@pytest.mark.parametrize(
    "statement",
    [
        "update expenses set state = 'paid'",
        "update expenses set state = 'approved', submitted_by = created_by, submitted_at = now()",
        "update expenses set decided_by = created_by, decided_at = now()",
        "update expenses set state = 'void'",
        "update expenses set void_reason = 'x'",
        "update expenses set category_id = gen_random_uuid()",
    ],
)
async def test_postgresql_refuses_a_row_that_no_move_leads_to(finance: RunningModule, statement: str) -> None:
    person = await finance.person()
    await add(person)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await in_company(finance, person, statement)


_MANY = 3000
_NARROWED: dict[str, ExpenseFilter] = {
    "created by nobody": ExpenseFilter(created_by=new_id()),
    "submitted by nobody": ExpenseFilter(submitted_by=new_id()),
    "decided by nobody": ExpenseFilter(decided_by=new_id()),
    # On each day of ten years something was put down; a month later it was paid.
    "scheduled": ExpenseFilter(scheduled_from=date(2018, 3, 1), scheduled_before=date(2018, 3, 8)),
    "paid": ExpenseFilter(paid_before=date(2016, 3, 1)),
    "paid later": ExpenseFilter(paid_from=date(2030, 1, 1)),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def many(running_finance: RunningModule, runtime: Runtime) -> Person:
    """Somebody in a company of many expenses, of which PostgreSQL knows how many there are."""
    person = Person(running_finance, CompanyId(new_id()), UserId(new_id()))
    await in_company(
        running_finance,
        person,
        "insert into expenses (id, company_id, description, amount_minor, currency, incurred_on, state, created_by,"
        " created_at, submitted_by, submitted_at, decided_by, decided_at, scheduled_for, paid_on)"
        " select lpad(to_hex(day), 32, '0')::uuid, $1, 'Stage', 1, 'USD', on_day, 'paid', $2, now(), $2, now(), $3,"
        " now(), on_day + 30, on_day + 30 from generate_series(1, $4::int) as day,"
        " lateral (select date '2016-01-01' + day) as incurred (on_day)",
        person.company_id,
        person.user_id,
        new_id(),
        _MANY,
    )
    url = urlsplit(runtime.administrator_url)._replace(path=urlsplit(running_finance.database_url).path).geturl()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("analyze expenses")
    finally:
        await connection.close()
    return person


@pytest.mark.parametrize("sort", ["-created", "-incurred_on"])
@pytest.mark.parametrize("wanted", _NARROWED.values(), ids=_NARROWED)
async def test_a_list_that_is_narrowed_looks_at_no_row_it_does_not_show(
    finance: RunningModule, many: Person, wanted: ExpenseFilter, sort: str
) -> None:
    everything = ScopeFilter({"business_unit": "*", "event": "*"})
    database = Database(finance.database_url, application_name="test")
    try:
        async with database.unit_of_work(company_id=many.company_id) as work:
            # Of a million rows it would not read all, of a few thousand it would.
            await work.execute(text("set local enable_seqscan = off"))
            page = await operations.page(work, many.company_id, everything, PageRequest(sort=sort), wanted)
            seen = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'expenses'"
            # The row behind the page tells that there is one.
            assert await work.scalar(text(seen)) == len(page.rows) + (page.next is not None)
    finally:
        await database.close()
