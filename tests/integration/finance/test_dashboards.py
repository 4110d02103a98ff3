import asyncio
from collections import Counter
from datetime import date, timedelta
from random import Random
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

import asyncpg
import pytest

from contracts.identifiers import new_id
from contracts.money import Money, total
from infra.clock import utc_now
from infra.postgres.database import Database
from services.finance.bills.rules import age_of
from services.finance.dashboards.operations import fold
from services.finance.dashboards.rules import LINES_MAX
from tests.harness.modules import Person, RunningModule
from tests.harness.waiting import wait_until
from tests.integration.finance.test_expenses import ONE, OTHER, in_company

STAGE, SOUND = str(new_id()), str(new_id())
PARTIES = pytest.mark.parametrize(("party", "column"), [("vendors", "vendor_id"), ("agencies", "agency_id")])
TODAY = utc_now().date()
THIS_MONTH = TODAY.replace(day=1)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)


async def put(finance: RunningModule, person: Person, *rows: dict[str, Any]) -> None:
    """Expenses in states that several people would have to take them to."""
    connection = await asyncpg.connect(finance.database_url)
    try:
        async with connection.transaction():
            await connection.execute("select set_config('app.company_id', $1, true)", str(person.company_id))
            for row in rows:
                given = {
                    "id": new_id(),
                    "company_id": person.company_id,
                    "description": "Stage",
                    "amount_minor": 1000,
                    "currency": "USD",
                    "incurred_on": THIS_MONTH,
                    "state": "approved",
                    "created_by": new_id(),
                    "created_at": utc_now(),
                    **row,
                }
                if given["state"] not in {"draft", "void"}:
                    given |= {"submitted_by": given["created_by"], "submitted_at": utc_now()}
                if given["state"] not in {"draft", "submitted", "void"}:
                    given |= {"decided_by": new_id(), "decided_at": utc_now()}
                if given["state"] == "paid":
                    given |= {"scheduled_for": given["incurred_on"], "paid_on": given["incurred_on"]}
                places = ", ".join(f"${number}" for number in range(1, len(given) + 1))
                statement = f"insert into expenses ({', '.join(given)}) values ({places})"  # noqa: S608 - our own names
                await connection.execute(statement, *given.values())
    finally:
        await connection.close()


async def shown(person: Person, party: str, query: str = "") -> dict[str, Any]:
    answer = await person.call("GET", f"/dashboards/{party}{query}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def in_months(body: dict[str, Any], part: dict[str, Any]) -> dict[str, str]:
    amounts = zip(body["months"], part["spent_by_month"], strict=True)
    return {month: amount for month, amount in amounts if amount.strip("0.")}


def in_ages(body: dict[str, Any], part: dict[str, Any]) -> dict[str, str]:
    amounts = zip(body["ages"], part["owed_by_age"], strict=True)
    return {age: amount for age, amount in amounts if amount.strip("0.")}


@PARTIES
async def test_what_was_agreed_to_is_shown_by_party_month_and_age(
    finance: RunningModule, party: str, column: str
) -> None:
    person = await finance.person()
    old = TODAY - timedelta(days=45)
    await put(
        finance,
        person,
        {column: STAGE, "amount_minor": 10050},
        {column: STAGE, "amount_minor": 20000, "incurred_on": LAST_MONTH, "state": "paid"},
        {column: SOUND, "amount_minor": 500, "state": "scheduled", "scheduled_for": old},
        {column: SOUND, "amount_minor": 7, "currency": "JPY", "state": "scheduled", "scheduled_for": TODAY},
        {"amount_minor": 300, "state": "paid"},
        *({column: STAGE, "state": state} for state in ("draft", "submitted")),
        {column: STAGE, "state": "rejected", "rejection_reason": "no"},
        {column: STAGE, "state": "void", "void_reason": "no"},
    )
    body = await shown(person, party)
    assert body["party"] == party.removesuffix("s").replace("agencie", "agency")
    yen, dollar = body["currencies"]
    assert (yen["currency"], yen["sum"]["spent"], in_ages(body, yen["sum"])) == ("JPY", "7", {"not_due": "7"})
    assert [(line["id"], line["spent"]) for line in dollar["lines"]] == [
        (STAGE, "300.50"),
        (SOUND, "5.00"),
        (None, "3.00"),
    ]
    stage, sound, nobody = dollar["lines"]
    assert in_months(body, stage) == {LAST_MONTH.isoformat(): "200.00", THIS_MONTH.isoformat(): "100.50"}
    assert in_ages(body, sound) == {"days_31_to_60": "5.00"}
    assert in_ages(body, nobody) == {}
    assert (dollar["sum"]["spent"], dollar["sum"]["owed"]) == ("308.50", "105.50")
    for name in ("spent", "owed"):
        lines = [Money.parse(line[name], "USD") for line in dollar["lines"]]
        assert Money.parse(dollar["sum"][name], "USD") == total(lines, "USD")


async def test_only_what_is_in_scope_is_added_up(finance: RunningModule) -> None:
    admin = await finance.person()
    await put(
        finance,
        admin,
        {"vendor_id": STAGE, "business_unit_id": ONE, "amount_minor": 100},
        {"vendor_id": STAGE, "business_unit_id": OTHER, "amount_minor": 10_000},
        {"vendor_id": SOUND, "business_unit_id": ONE, "event_id": OTHER, "amount_minor": 1_000_000},
        {"vendor_id": SOUND, "amount_minor": 100_000_000},
    )
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    (dollar,) = (await shown(scoped, "vendors"))["currencies"]
    assert [(line["id"], line["spent"]) for line in dollar["lines"]] == [(SOUND, "10000.00"), (STAGE, "1.00")]
    assert dollar["sum"]["spent"] == "10001.00"
    both = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": (OTHER,)})
    (dollar,) = (await shown(both, "vendors"))["currencies"]
    assert [line["id"] for line in dollar["lines"]] == [SOUND]
    nobody = await finance.person(admin.company_id, scopes={"business_unit": (), "event": "*"})
    stranger = await finance.person()
    for person in (nobody, stranger):
        assert (await shown(person, "vendors"))["currencies"] == []
        picture = await person.call("GET", "/dashboards/vendors/picture")
        assert "USD" not in picture.text


async def test_months_are_chosen_and_what_is_owed_is_not_bounded_by_them(finance: RunningModule) -> None:
    person = await finance.person()
    await put(
        finance,
        person,
        {"incurred_on": date(2025, 1, 31), "amount_minor": 100},
        {"incurred_on": date(2025, 2, 1), "amount_minor": 200},
    )
    body = await shown(person, "vendors", "?from=2025-01-01&before=2025-02-01")
    assert (body["first_day"], body["end_day"]) == ("2025-01-01", "2025-02-01")
    (dollar,) = body["currencies"]
    assert (dollar["sum"]["spent"], dollar["sum"]["owed"]) == ("1.00", "3.00")
    for query, pointer in {
        "from=2025-02-01&before=2025-02-01": "?before",
        "from=x": "?from",
        "before=9": "?before",
    }.items():
        refused = await person.call("GET", f"/dashboards/vendors?{query}")
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)


@PARTIES
async def test_the_picture_and_the_document_say_the_same(finance: RunningModule, party: str, column: str) -> None:
    person = await finance.person()
    await put(finance, person, {column: STAGE, "amount_minor": 123456})
    picture = await person.call("GET", f"/dashboards/{party}/picture")
    assert picture.headers["Content-Type"] == "image/svg+xml"
    assert picture.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in picture.headers["Content-Security-Policy"]
    drawn = ET.fromstring(picture.content)  # noqa: S314 - it is our own
    texts = [each.text for each in drawn.iter()]
    assert f"{THIS_MONTH:%Y-%m}: 1234.56 USD" in texts
    assert "1234.56 USD" in texts
    assert not [each for each in drawn.iter() if each.tag.endswith("script")]
    document = await person.call("GET", f"/dashboards/{party}/document")
    assert document.headers["Content-Type"] == "application/pdf"
    assert document.headers["Content-Disposition"].startswith("attachment; ")
    assert document.content.startswith(b"%PDF-")


async def test_who_may_see_expenses_and_no_dashboards_sees_none(finance: RunningModule) -> None:
    person = await finance.person(permissions=("finance.expenses.read",))
    for party in ("vendors", "agencies"):
        for form in ("", "/picture", "/document"):
            refused = await person.call("GET", f"/dashboards/{party}{form}")
            assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")


async def test_what_is_owed_is_as_old_as_a_bill_would_be(finance: RunningModule) -> None:
    person = await finance.person()
    days = (-5, 0, 1, 30, 31, 60, 61, 90, 91)
    rows = [{"state": "scheduled", "scheduled_for": TODAY - timedelta(days=each), "amount_minor": 1} for each in days]
    await put(finance, person, *rows)
    body = await shown(person, "vendors")
    (dollar,) = body["currencies"]
    expected = Counter(age_of(TODAY - timedelta(days=each), TODAY).value for each in days)
    assert in_ages(body, dollar["sum"]) == {age: str(Money(count, "USD")) for age, count in expected.items()}


def _as_lines(rows: list[dict[str, Any]], column: str) -> list[tuple[str | None, bool, int, int]]:
    """What a dashboard of one currency shows, added up one by one: party, whether it is the rest, spent, owed."""
    spent, owed = Counter[str | None](), Counter[str | None]()
    for row in rows:
        spent[row[column]] += row["amount_minor"] if row["incurred_on"] >= THIS_MONTH else 0
        owed[row[column]] += row["amount_minor"] if row["state"] == "approved" else 0
    ranked = sorted(spent | owed, key=lambda party: (-spent[party], -owed[party], party is None, party))
    rest = ranked[LINES_MAX:]
    return [
        *((party, False, spent[party], owed[party]) for party in ranked[:LINES_MAX]),
        (None, True, sum(spent[party] for party in rest), sum(owed[party] for party in rest)),
    ]


@PARTIES
async def test_behind_those_with_the_most_all_others_are_one_line_and_the_whole_is_the_sum(
    finance: RunningModule, party: str, column: str
) -> None:
    admin = await finance.person()
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    random = Random(party)  # noqa: S311 - a sample
    parties = [None, *(str(new_id()) for _ in range(LINES_MAX + 9))]
    rows: list[dict[str, Any]] = [
        {
            "business_unit_id": ONE,
            column: random.choice(parties),
            # So few that many are as large as another; half are of before the month that is asked for.
            "amount_minor": random.randrange(1, 4),
            "incurred_on": random.choice((THIS_MONTH, LAST_MONTH)),
            "state": random.choice(("approved", "paid")),
        }
        for _ in range(400)
    ]
    await put(finance, admin, *rows)
    expected = [
        (party_id, is_rest, str(Money(spent, "USD")), str(Money(owed, "USD")))
        for party_id, is_rest, spent, owed in _as_lines(rows, column)
    ]
    for person in (admin, scoped):
        (dollar,) = (await shown(person, party, f"?from={THIS_MONTH}"))["currencies"]
        assert [(line["id"], line["is_rest"], line["spent"], line["owed"]) for line in dollar["lines"]] == expected
        for name in ("spent", "owed"):
            assert Money.parse(dollar["sum"][name], "USD") == total(
                (Money.parse(line[name], "USD") for line in dollar["lines"]), "USD"
            )
        in_full = sum(row["amount_minor"] for row in rows if row["incurred_on"] == THIS_MONTH)
        assert dollar["sum"]["spent"] == str(Money(in_full, "USD"))


async def test_what_was_taken_back_leaves_no_line(finance: RunningModule) -> None:
    person = await finance.person()
    await put(finance, person, {"vendor_id": STAGE}, {"vendor_id": SOUND})
    await in_company(
        finance, person, "update expenses set state = 'void', void_reason = 'no' where vendor_id = $1", UUID(STAGE)
    )
    (dollar,) = (await shown(person, "vendors"))["currencies"]
    assert [line["id"] for line in dollar["lines"]] == [SOUND]


async def answered_over(finance: RunningModule, person: Person, path: str, table: str, change: str) -> Any:
    """The answer to a question that is half read, and waits for a table, when the company's rows are changed."""
    connection = await asyncpg.connect(finance.database_url)

    async def waiting() -> int:
        return int(await connection.fetchval("select count(*) from pg_locks where not granted"))

    try:
        async with connection.transaction():
            await connection.execute("select set_config('app.company_id', $1, true)", str(person.company_id))
            await connection.execute(f"lock table {table}")
            asking = asyncio.create_task(person.call("GET", path))
            await wait_until(waiting, bool, describe="the question waits")
            await connection.execute(change)
        answer = await asking
        assert answer.status_code == 200, answer.text
        return answer.json()
    finally:
        await connection.close()


async def test_what_is_spent_and_what_is_owed_are_of_one_moment(finance: RunningModule) -> None:
    person = await finance.person()
    await put(finance, person, {"vendor_id": STAGE})
    change = "update expenses set amount_minor = 777"
    for _ in range(2):
        (dollar,) = (await answered_over(finance, person, "/dashboards/vendors", "expenses", change))["currencies"]
        # Of all that was agreed to, nothing is paid.
        assert dollar["sum"]["spent"] == dollar["sum"]["owed"]
        change = "update expenses set amount_minor = 888"


#: What is done to an expense, in SQL: triggers have to be right about whatever anybody writes.
CHANGES = (
    "set amount_minor = amount_minor + 7",
    "set vendor_id = null, description = 'Nobody named'",
    f"set vendor_id = '{SOUND}', agency_id = '{STAGE}'",
    f"set incurred_on = '{LAST_MONTH}'",
    "set currency = 'JPY'",
    "set state = 'void', void_reason = 'no', paid_on = null",
    "set state = 'submitted', void_reason = null, paid_on = null",
    f"set state = 'approved', void_reason = null, paid_on = null, decided_by = '{new_id()}', decided_at = created_at",
    "set description = 'Written anew'",
)


async def _write(finance: RunningModule, person: Person, random: Random) -> None:
    """One after the other, each committed: rows, changes of one or of several, and some that are taken back."""
    for _ in range(12):
        await put(
            finance,
            person,
            *(
                {
                    "business_unit_id": ONE,
                    "vendor_id": random.choice((STAGE, SOUND, None)),
                    "agency_id": random.choice((STAGE, SOUND, None)),
                    "currency": random.choice(("USD", "JPY")),
                    "incurred_on": random.choice((THIS_MONTH, LAST_MONTH)),
                    "state": random.choice(("submitted", "approved", "paid")),
                    "amount_minor": random.randrange(1, 10_000),
                }
                for _ in range(random.randrange(4))
            ),
        )
        connection = await asyncpg.connect(finance.database_url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("select set_config('app.company_id', $1, true)", str(person.company_id))
            some = await connection.fetch(
                "select id from expenses order by id offset $1 limit 3 for update", random.randrange(12)
            )
            for change in random.choices(CHANGES, k=3):
                await connection.execute(f"update expenses {change} where id = any($1)", [row["id"] for row in some])
            await (transaction.rollback if random.randrange(4) == 0 else transaction.commit)()
        finally:
            await connection.close()


@pytest.mark.parametrize("seed", range(3))
async def test_sums_are_those_of_the_expenses_whatever_was_written_by_many_at_once_and_folded_meanwhile(
    finance: RunningModule, seed: int
) -> None:
    admin = await finance.person()
    # The same expenses, added up one by one: every one of them is of this unit.
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    database = Database(finance.database_url, application_name="test")

    async def fold_some() -> None:
        for _ in range(10):
            await fold(database)

    try:
        writers = (_write(finance, admin, Random(f"{seed} {number}")) for number in range(3))  # noqa: S311 - a sample
        await asyncio.gather(*writers, fold_some(), fold_some())
        for _ in range(2):
            for party in ("vendors", "agencies"):
                seen = await shown(admin, party)
                assert seen
                assert seen == await shown(scoped, party)
            await fold(database)
    finally:
        await database.close()
    connection = await asyncpg.connect(finance.database_url)
    try:
        async with connection.transaction():
            await connection.execute("select set_config('app.company_id', $1, true)", str(admin.company_id))
            kept = await connection.fetchrow(
                "select count(*) as rows, count(distinct (party, party_id, month, currency)) as sums,"
                " bool_and(is_folded) as are_folded from spent_sums"
            )
    finally:
        await connection.close()
    assert kept is not None
    assert kept["rows"] == kept["sums"] > 0
    assert kept["are_folded"]
