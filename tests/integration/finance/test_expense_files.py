import asyncio
import csv
import io
from typing import Any
from uuid import UUID

import httpx
import pytest

from contracts.identifiers import new_id
from tests.harness.modules import Person, RunningModule
from tests.integration.finance.test_attachments import PDF, PNG
from tests.integration.finance.test_expenses import ONE, OTHER, add, in_company, tell_of

HEADER = "incurred_on,description,amount,currency,business_unit_id,event_id"
GOOD = "2026-05-21,Stage,1200.50,USD,,"


def table(*rows: str, header: str = HEADER) -> str:
    return "\r\n".join([header, *rows, ""])


async def send(person: Person, content: str | bytes, *, dry_run: bool = False, **given: Any) -> httpx.Response:
    raw = content.encode() if isinstance(content, str) else content
    headers = {"Content-Type": "text/csv", **given.pop("headers", {})}
    query = "?dry_run=true" if dry_run else ""
    return await person.call("POST", f"/expenses/import{query}", content=raw, headers=headers, **given)


async def exported(person: Person, query: str = "") -> list[dict[str, str]]:
    answer = await person.call("GET", f"/expenses/export{query}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def listed(person: Person) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await person.call("GET", "/expenses?limit=200&sort=created")).json()["expenses"]
    return found


def faults(answer: httpx.Response) -> list[tuple[str, str]]:
    assert (answer.status_code, answer.json()["code"]) == (422, "rows_refused"), answer.text
    return [(each["pointer"], each["rule"]) for each in answer.json()["errors"]]


async def test_a_table_is_put_down_as_drafts_each_with_its_history(finance: RunningModule) -> None:
    person = await finance.person()
    await tell_of(finance, person, OTHER)
    text = '"Łódź, ""the"" stage"'
    answer = await send(person, "\ufeff" + table(GOOD, f"2026-05-22,{text},7,JPY,{ONE},{OTHER}", ""))
    assert (answer.status_code, answer.json()) == (200, {"rows": 2, "imported": 2})
    stage, other = await listed(person)
    assert (stage["amount"], stage["currency"], stage["incurred_on"]) == ("1200.50", "USD", "2026-05-21")
    assert (stage["business_unit_id"], stage["event_id"], stage["state"]) == (None, None, "draft")
    assert (other["description"], other["amount"]) == ('Łódź, "the" stage', "7")
    assert (other["business_unit_id"], other["event_id"]) == (ONE, OTHER)
    (entry,) = (await person.call("GET", f"/expenses/{other['id']}/history")).json()["entries"]
    assert (entry["action"], entry["actor_user_id"]) == ("add", str(person.user_id))


async def test_an_event_nobody_told_of_is_a_fault_of_its_row(finance: RunningModule) -> None:
    person = await finance.person()
    answer = await send(person, table(GOOD, f"2026-05-22,Sound,7,JPY,,{OTHER}", ""))
    assert faults(answer) == [("/3/event_id", "event_unknown")]
    assert await listed(person) == []


async def test_a_dry_run_says_the_same_and_puts_down_nothing(finance: RunningModule) -> None:
    person = await finance.person()
    answer = await send(person, table(GOOD, GOOD), dry_run=True)
    assert (answer.status_code, answer.json()) == (200, {"rows": 2, "imported": 0})
    bad = table(GOOD, GOOD.replace("USD", "XXX"))
    assert (
        faults(await send(person, bad, dry_run=True))
        == faults(await send(person, bad))
        == [("/3/currency", "currency_unknown")]
    )
    assert await listed(person) == []


async def test_one_bad_row_at_the_end_of_thousands_refuses_them_all_and_is_named(finance: RunningModule) -> None:
    person = await finance.person()
    answer = await send(person, table(*[GOOD] * 2999, GOOD.replace("1200.50", "0.001")))
    assert faults(answer) == [("/3001/amount", "amount_invalid")]
    assert answer.json()["detail"] == "1 of 3000 rows break a rule. Nothing was taken in."
    assert await listed(person) == []


async def test_the_first_hundred_bad_rows_are_named_and_the_rest_counted(finance: RunningModule) -> None:
    person = await finance.person()
    answer = await send(person, table(*[GOOD.replace("2026-05-21", "21.05.2026")] * 150, GOOD))
    assert faults(answer) == [(f"/{row}/incurred_on", "date_text") for row in range(2, 102)]
    assert answer.json()["detail"].startswith("150 of 151 rows")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (GOOD.replace("1200.50", ""), ("/2/amount", "missing")),
        (GOOD.replace("1200.50", "-1"), ("/2/amount", "amount_invalid")),
        (GOOD.replace("1200.50", "1e3"), ("/2/amount", "amount_invalid")),
        (GOOD.replace("1200.50", '"1,200.50"'), ("/2/amount", "amount_invalid")),
        (GOOD.replace("USD", "usd"), ("/2/currency", "currency_unknown")),
        (GOOD.replace("2026-05-21", "2999-01-01"), ("/2/incurred_on", "expense_date_refused")),
        (GOOD.replace("2026-05-21", "2026-02-30"), ("/2/incurred_on", "date_text")),
        (GOOD.replace("Stage", ""), ("/2/description", "missing")),
        (GOOD.replace("Stage", "x" * 501), ("/2/description", "string_too_long")),
        (GOOD.replace("Stage", '"two\nlines"'), ("/2/description", "control_character")),
        (GOOD.replace(",,", ",one,"), ("/2/business_unit_id", "id_text")),
        (f"{GOOD},more", ("/2", "row_too_long")),
        ('"2026-05-21"x', ("/2", "csv_malformed")),
    ],
)
async def test_a_row_that_breaks_a_rule_names_row_column_and_rule(
    finance: RunningModule, row: str, fault: tuple[str, str]
) -> None:
    person = await finance.person()
    assert faults(await send(person, table(row))) == [fault]
    assert await listed(person) == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (HEADER.replace("amount", "sum"), [("/1/amount", "column_missing"), ("/1/sum", "column_unknown")]),
        (f"{HEADER},amount", [("/1/amount", "column_repeated")]),
        (f"{HEADER},state", [("/1/state", "column_unknown")]),
        (f"{HEADER},", [("/1", "column_unknown")]),
        (f"{HEADER},a/b", [("/1/a~1b", "column_unknown")]),
    ],
)
async def test_a_header_that_is_not_of_an_expense_is_refused(
    finance: RunningModule, header: str, expected: list[tuple[str, str]]
) -> None:
    person = await finance.person()
    assert faults(await send(person, table(GOOD, header=header))) == expected


async def test_a_table_without_rows_is_none(finance: RunningModule) -> None:
    person = await finance.person()
    assert faults(await send(person, table())) == [("/1", "rows_missing")]
    for content, media_type in ((PDF, "text/csv"), (PNG, "text/csv"), (b"a\xff", "text/csv"), (b"", "text/csv")):
        refused = await send(person, content, headers={"Content-Type": media_type})
        assert (refused.status_code, refused.json()["code"]) == (422, "file_not_what_it_says")
    refused = await send(person, table(GOOD), headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")


async def test_a_row_outside_of_ones_scopes_refuses_all_of_them(finance: RunningModule) -> None:
    admin = await finance.person()
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    mine, foreign = GOOD.replace(",,", f",{ONE},"), GOOD.replace(",,", f",{OTHER},")
    refused = await send(scoped, table(mine, foreign))
    assert (refused.status_code, refused.json()["code"]) == (403, "out_of_scope")
    assert refused.json()["detail"].startswith("Row 3: ")
    assert await listed(admin) == []
    assert (await send(scoped, table(mine))).json() == {"rows": 1, "imported": 1}


async def test_a_table_sent_twice_is_taken_in_once(finance: RunningModule) -> None:
    person = await finance.person()
    first, second = [await send(person, table(GOOD, GOOD), key="k") for _ in range(2)]
    assert (first.status_code, first.json()) == (second.status_code, second.json()) == (200, first.json())
    assert len(await listed(person)) == 2
    other = await send(person, table(GOOD), key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    without = await send(person, table(GOOD), key=None)
    assert (without.status_code, without.json()["code"]) == (400, "idempotency_key_missing")


async def test_of_one_table_sent_at_once_one_is_taken_in(finance: RunningModule) -> None:
    person = await finance.person()
    answers = await asyncio.gather(*(send(person, table(GOOD, GOOD), key="k") for _ in range(3)))
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"rows": 2, "imported": 2})] * 3
    assert len(await listed(person)) == 2


async def test_a_category_nobody_has_and_a_closed_month_are_named_by_the_first_row_of_each(
    finance: RunningModule,
) -> None:
    person = await finance.person()
    closed = await person.call("POST", "/periods", json={"month": "2026-04"})
    assert closed.status_code == 201, closed.text
    unknown = new_id()
    rows = [f"{GOOD},", f"{GOOD},{unknown}", f"{GOOD},{unknown}"]
    rows += [f"{GOOD},".replace("2026-05", "2026-04")] * 2
    answer = await send(person, table(*rows, header=f"{HEADER},category_id"))
    assert faults(answer) == [("/3/category_id", "category_refused"), ("/5/incurred_on", "period_closed")]
    assert await listed(person) == []


async def test_what_is_exported_is_what_is_in_scope_and_asked_for(finance: RunningModule) -> None:
    admin = await finance.person()
    mine, foreign = await add(admin, business_unit_id=ONE), await add(admin, business_unit_id=OTHER)
    later = await add(admin, business_unit_id=ONE, incurred_on="2026-06-01")
    assert [row["id"] for row in await exported(admin)] == [later["id"], foreign["id"], mine["id"]]
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    assert [row["id"] for row in await exported(scoped)] == [later["id"], mine["id"]]
    assert [row["id"] for row in await exported(scoped, "?incurred_before=2026-06-01")] == [mine["id"]]
    nobody = await finance.person(admin.company_id, scopes={"business_unit": "*"})
    assert await exported(nobody) == await exported(await finance.person()) == []
    (row,) = await exported(scoped, "?incurred_before=2026-06-01")
    assert (row["amount"], row["currency"], row["state"], row["event_id"]) == ("1200.50", "USD", "draft", "")
    answer = await admin.call("GET", "/expenses/export")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert (
        answer.headers["Content-Disposition"] == "attachment; filename=\"expenses.csv\"; filename*=UTF-8''expenses.csv"
    )


async def test_an_export_calls_an_event_by_its_title_as_far_as_it_is_known(finance: RunningModule) -> None:
    person = await finance.person()
    named, nameless = str(new_id()), str(new_id())
    for event_id in (named, nameless):
        await tell_of(finance, person, event_id)
        await add(person, event_id=event_id)
    statement = "update projected_events set title = '=Aurora' where id = $1"
    await in_company(finance, person, statement, UUID(named))
    assert [row["event_title"] for row in await exported(person)] == ["", "'=Aurora"]


async def test_a_formula_goes_out_as_text_and_comes_in_again_as_it_was(finance: RunningModule) -> None:
    person, other = await finance.person(), await finance.person()
    formulas = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2", "'=1", "'"]
    for description in formulas:
        await add(person, description=description)
    rows = await exported(person)
    assert [row["description"] for row in rows] == ["'", "''=1", "'-2", "'+cmd|' /C calc'!A0", "'@SUM(A1)", "'=1+1"]
    own = HEADER.split(",")
    text = io.StringIO()
    writer = csv.DictWriter(text, own, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(reversed(rows))
    assert (await send(other, text.getvalue())).json() == {"rows": 6, "imported": 6}
    assert [each["description"] for each in await listed(other)] == formulas


async def test_a_long_list_goes_out_page_by_page_without_a_gap_and_without_a_double(finance: RunningModule) -> None:
    person = await finance.person()
    rows = [GOOD.replace("Stage", f"Number {number}") for number in range(2500)]
    assert (await send(person, table(*rows))).json()["imported"] == 2500
    found = [row["description"] for row in await exported(person)]
    assert sorted(found) == sorted(f"Number {number}" for number in range(2500))


async def test_a_row_without_an_end_is_none(finance: RunningModule) -> None:
    person = await finance.person()
    header = ",".join(f"{number:x}" for number in range(100_000))
    assert [fault[1] for fault in faults(await send(person, header + "\r\n"))] == ["csv_malformed"]
    assert [fault[1] for fault in faults(await send(person, table("," * 100_000)))] == ["csv_malformed"]
    many = await send(person, ",".join(f"{number:x}" for number in range(5000)) + "\r\n")
    assert len(faults(many)) == 100


async def test_a_day_long_ago_is_a_slip_of_the_pen(finance: RunningModule) -> None:
    person = await finance.person()
    assert faults(await send(person, table(GOOD.replace("2026", "0926")))) == [("/2/incurred_on", "date_text")]
