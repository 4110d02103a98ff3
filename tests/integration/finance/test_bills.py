import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from contracts.identifiers import new_id
from tests.harness.modules import Person, RunningModule
from tests.integration.finance.test_expenses import approver, in_company

ONE, OTHER = str(new_id()), str(new_id())
BILL = {
    "description": "Sound and light",
    "amount": "1000",
    "currency": "USD",
    "billed_on": "2026-05-01",
    "due_on": "2999-01-01",
}
VOID = {"reason": "Sent twice"}


async def add(person: Person, **changed: Any) -> dict[str, Any]:
    answer = await person.call("POST", "/bills", json={**BILL, **changed})
    assert answer.status_code == 201, answer.text
    assert answer.headers["ETag"] == '"1"'
    body: dict[str, Any] = answer.json()
    return body


async def change(person: Person, bill: dict[str, Any], name: str, tag: str = "*", said: Any = None) -> Any:
    return await person.call("POST", f"/bills/{bill['id']}/{name}", headers={"If-Match": tag}, json=said)


async def edit(person: Person, bill: dict[str, Any], tag: str = "*", **changes: Any) -> Any:
    return await person.call("PATCH", f"/bills/{bill['id']}", headers={"If-Match": tag}, json=changes)


async def pay(person: Person, bill: dict[str, Any], amount: str, **said: Any) -> Any:
    given = {"key": said.pop("key")} if "key" in said else {}
    body = {"amount": amount, "currency": bill["currency"], "paid_on": "2026-05-02", **said}
    return await person.call("POST", f"/bills/{bill['id']}/payments", json=body, **given)


async def read(person: Person, bill: dict[str, Any]) -> Any:
    return (await person.call("GET", f"/bills/{bill['id']}")).json()


async def approved(finance: RunningModule, person: Person, **changed: Any) -> dict[str, Any]:
    bill = await add(person, **changed)
    answer = await change(await approver(finance, person), bill, "approve", '"1"')
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"'), answer.text
    body: dict[str, Any] = answer.json()
    return body


def days_ago(days: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


async def test_a_bill_goes_its_way_from_open_to_paid(finance: RunningModule) -> None:
    person = await finance.person()
    bill = await add(person, vendor_id=ONE, reference="R-7")
    assert (bill["state"], bill["moves"], bill["open"]) == ("open", ["approve", "void"], "1000.00")
    found = await approved(finance, person)
    assert (found["state"], found["moves"]) == ("approved", ["pay-part", "pay", "void"])
    first = await pay(person, found, "400")
    assert (first.status_code, first.json()["amount"], first.json()["bill_id"]) == (201, "400.00", found["id"])
    part_paid = await read(person, found)
    assert [part_paid[name] for name in ("state", "paid", "open", "version")] == ["part_paid", "400.00", "600.00", 3]
    second = await pay(person, found, "600.00")
    paid = await read(person, found)
    assert [paid[name] for name in ("state", "paid", "open", "moves")] == ["paid", "1000.00", "0.00", []]
    listed = (await person.call("GET", f"/bills/{found['id']}/payments")).json()
    assert listed == {"payments": [first.json(), second.json()], "next": None}
    entries = (await person.call("GET", f"/bills/{found['id']}/history")).json()["entries"]
    assert [each["action"] for each in entries] == ["pay", "pay-part", "approve", "add"]


@pytest.mark.parametrize(
    ("amount", "said", "status", "code"),
    [
        ("1000.01", {}, 409, "payment_exceeds_open"),
        ("0", {}, 422, "amount_invalid"),
        ("-1", {}, 422, "amount_invalid"),
        ("0.001", {}, 422, "amount_invalid"),
        ("1", {"currency": "EUR"}, 422, "payment_currency_differs"),
        ("1", {"currency": "XXX"}, 422, "currency_unknown"),
        ("1", {"paid_on": "2999-01-01"}, 422, "payment_day_refused"),
        ("1", {"key": None}, 400, "idempotency_key_missing"),
    ],
)
async def test_a_payment_that_breaks_a_rule_is_none(
    finance: RunningModule, amount: str, said: dict[str, Any], status: int, code: str
) -> None:
    person = await finance.person()
    bill = await approved(finance, person)
    refused = await pay(person, bill, amount, **said)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert await read(person, bill) == bill
    assert (await person.call("GET", f"/bills/{bill['id']}/payments")).json()["payments"] == []


async def test_nothing_is_paid_before_it_is_approved_or_after_it_is_void_or_paid(finance: RunningModule) -> None:
    person = await finance.person()
    open_bill, void, paid = await add(person), await approved(finance, person), await approved(finance, person)
    await change(person, void, "void", said=VOID)
    assert (await read(person, void))["open"] == "0.00"
    await pay(person, paid, "1000")
    for bill in (open_bill, void, paid):
        refused = await pay(person, bill, "1")
        assert (refused.status_code, refused.json()["code"]) == (409, "illegal_move")
    for bill in (paid, void):
        refused = await change(person, bill, "void", said=VOID)
        assert (refused.status_code, refused.json()["code"]) == (409, "illegal_move")
    part_paid = await approved(finance, person)
    await pay(person, part_paid, "1")
    assert (await change(person, part_paid, "void", said=VOID)).json()["code"] == "illegal_move"


async def test_an_open_bill_is_edited_and_an_approved_one_is_not(finance: RunningModule) -> None:
    person = await finance.person()
    bill = await add(person)
    edited = await edit(person, bill, '"1"', amount="7.5", reference="R-8")
    assert (edited.json()["amount"], edited.json()["open"], edited.headers["ETag"]) == ("7.50", "7.50", '"2"')
    assert edited.json()["changed_by"] == str(person.user_id)
    assert (await edit(person, bill)).headers["ETag"] == '"2"'
    assert (await edit(person, bill, '"1"', amount="8")).json()["code"] == "version_mismatch"
    due = await edit(person, bill, due_on="2026-04-30")
    assert (due.status_code, due.json()["errors"][0]["pointer"]) == (422, "/due_on")
    refused = await edit(person, await approved(finance, person), amount="1")
    assert (refused.status_code, refused.json()["code"]) == (409, "bill_not_editable")


async def test_of_two_payments_of_the_whole_at_once_exactly_one_is_made(finance: RunningModule) -> None:
    person = await finance.person()
    bill = await approved(finance, person)
    answers = await asyncio.gather(*(pay(person, bill, "1000") for _ in range(4)))
    assert Counter(each.status_code for each in answers) == Counter({201: 1, 409: 3})
    assert {each.json()["code"] for each in answers if each.status_code == 409} == {"illegal_move"}
    parted = await approved(finance, person)
    answers = await asyncio.gather(*(pay(person, parted, "600") for _ in range(4)))
    assert Counter(each.status_code for each in answers) == Counter({201: 1, 409: 3})
    assert {each.json()["code"] for each in answers if each.status_code == 409} == {"payment_exceeds_open"}
    assert [(await read(person, each))["paid"] for each in (bill, parted)] == ["1000.00", "600.00"]


async def test_a_payment_sent_many_times_at_once_is_made_once(finance: RunningModule) -> None:
    person = await finance.person()
    bill = await approved(finance, person)
    answers = await asyncio.gather(*(pay(person, bill, "100", key="k") for _ in range(6)))
    assert {(each.status_code, each.text) for each in answers} == {(201, answers[0].text)}
    assert (await read(person, bill))["paid"] == "100.00"
    reused = await pay(person, bill, "101", key="k")
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


async def test_of_two_approvals_at_once_exactly_one_is_made(finance: RunningModule) -> None:
    person = await finance.person()
    deciders = [await approver(finance, person) for _ in range(2)]
    for tag, other in (('"1"', 412), ("*", 409)):
        bill = await add(person)
        answers = await asyncio.gather(*(change(decider, bill, "approve", tag) for decider in deciders))
        assert Counter(each.status_code for each in answers) == Counter([200, other])


async def test_overdue_is_told_by_the_clock(finance: RunningModule) -> None:
    person = await finance.person()
    billed = days_ago(50)
    due_today = await add(person, billed_on=billed, due_on=days_ago(0))
    overdue = await add(person, billed_on=billed, due_on=days_ago(1))
    paid = await approved(finance, person, billed_on=billed, due_on=days_ago(1))
    await pay(person, paid, "1000")
    assert [(await read(person, each))["is_overdue"] for each in (due_today, overdue, paid)] == [False, True, False]
    for query, found in {"true": {overdue["id"]}, "false": {due_today["id"], paid["id"]}}.items():
        listed = (await person.call("GET", f"/bills?is_overdue={query}")).json()["bills"]
        assert {each["id"] for each in listed} == found


async def test_ageing_is_of_what_is_open_by_currency_and_re_adds(finance: RunningModule) -> None:
    person = await finance.person()
    billed = days_ago(400)
    for days, amount in ((0, "1"), (1, "2"), (30, "4"), (31, "8"), (60, "16"), (90, "32"), (91, "64"), (300, "128")):
        await add(person, billed_on=billed, due_on=days_ago(days), amount=amount)
    part_paid = await approved(finance, person, billed_on=billed, due_on=days_ago(2), amount="1000.75")
    await pay(person, part_paid, "1000")
    await pay(person, await approved(finance, person), "1000")
    await change(person, await approved(finance, person), "void", said=VOID)
    await add(person, currency="JPY", amount="5000")
    found = (await person.call("GET", "/bills/ageing")).json()
    assert [each["currency"] for each in found["currencies"]] == ["JPY", "USD"]
    yen, dollars = found["currencies"]
    assert [(each["age"], each["bills"], each["open"]) for each in dollars["ages"]] == [
        ("not_due", 1, "1.00"),
        ("days_1_to_30", 3, "6.75"),
        ("days_31_to_60", 2, "24.00"),
        ("days_61_to_90", 1, "32.00"),
        ("days_over_90", 2, "192.00"),
    ]
    assert (dollars["bills"], dollars["open"]) == (9, "255.75")
    assert (yen["bills"], yen["open"], yen["ages"][0]["open"]) == (1, "5000", "5000")


async def test_scopes_bite_on_bills_payments_and_ageing(finance: RunningModule) -> None:
    admin = await finance.person()
    mine = await approved(finance, admin, business_unit_id=ONE, amount="10")
    foreign = await approved(finance, admin, business_unit_id=OTHER, amount="700")
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    listed = (await scoped.call("GET", "/bills")).json()["bills"]
    assert [each["id"] for each in listed] == [mine["id"]]
    (dollars,) = (await scoped.call("GET", "/bills/ageing")).json()["currencies"]
    assert (dollars["bills"], dollars["open"]) == (1, "10.00")
    refused = [
        await scoped.call("GET", f"/bills/{foreign['id']}"),
        await scoped.call("GET", f"/bills/{foreign['id']}/payments"),
        await scoped.call("GET", f"/bills/{foreign['id']}/history"),
        await pay(scoped, foreign, "1"),
        await change(scoped, foreign, "void", said=VOID),
        await scoped.call("POST", "/bills", json={**BILL, "business_unit_id": OTHER}),
        await scoped.call("POST", "/bills", json=BILL),
    ]
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(403, "out_of_scope")}
    assert (await pay(scoped, mine, "1")).status_code == 201


async def test_another_companys_bill_is_no_bill(finance: RunningModule) -> None:
    person, stranger = await finance.person(), await finance.person()
    bill = await approved(finance, person)
    for one, other in (
        (await pay(stranger, bill, "1"), await pay(stranger, {**bill, "id": uuid4()}, "1")),
        (await change(stranger, bill, "approve"), await change(stranger, {"id": uuid4()}, "approve")),
    ):
        assert one.status_code == other.status_code == 404
        assert {**one.json(), "request_id": None} == {**other.json(), "request_id": None}
    assert (await stranger.call("GET", "/bills/ageing")).json()["currencies"] == []


@pytest.mark.parametrize(
    ("changed", "pointer", "rule"),
    [
        ({"amount": "0.001"}, "/amount", "amount_invalid"),
        ({"amount": "-5"}, "/amount", "amount_invalid"),
        ({"currency": "XXX"}, "/currency", "currency_unknown"),
        ({"billed_on": "2998-01-01"}, "/billed_on", "bill_date_refused"),
        ({"due_on": "2026-04-30"}, "/due_on", "bill_due_refused"),
        ({"reference": ""}, "/reference", "string_too_short"),
        ({"paid": "1"}, "/paid", "extra_forbidden"),
    ],
)
async def test_a_bill_that_breaks_a_rule_names_field_and_rule_and_is_not_there(
    finance: RunningModule, changed: dict[str, Any], pointer: str, rule: str
) -> None:
    person = await finance.person()
    answer = await person.call("POST", "/bills", json={**BILL, **changed})
    assert answer.status_code == 422
    assert [(error["pointer"], error["rule"]) for error in answer.json()["errors"]] == [(pointer, rule)]
    assert (await person.call("GET", "/bills")).json()["bills"] == []


@pytest.mark.parametrize(
    "statement",
    [
        "update bills set paid_minor = 0",
        "update bills set paid_minor = 100001",
        "update bills set state = 'paid'",
        "update bills set approved_by = created_by",
        "update bills set changed_by = approved_by",
        "update bills set currency = 'EUR'",
        "update bill_payments set amount_minor = 0",
    ],
)
async def test_postgresql_refuses_a_row_that_no_payment_leads_to(finance: RunningModule, statement: str) -> None:
    person = await finance.person()
    bill = await approved(finance, person)
    await pay(person, bill, "400")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await in_company(finance, person, statement)


async def test_a_sum_may_be_larger_than_any_one_amount(finance: RunningModule) -> None:
    person = await finance.person()
    largest = {**BILL, "amount": "90071992547409.91"}
    for _ in range(2):
        assert (await person.call("POST", "/bills", json=largest)).status_code == 201
    more = await person.call("POST", "/bills", json={**BILL, "amount": "90071992547409.92"})
    assert (more.status_code, more.json()["code"]) == (422, "amount_invalid")
    answer = await person.call("GET", "/bills/ageing")
    assert answer.status_code == 200, answer.text
    assert "180143985094819.82" in answer.text
