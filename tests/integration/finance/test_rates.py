import asyncio
from collections import Counter
from datetime import date
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from contracts.identifiers import new_id
from contracts.money import Money, total
from services.finance.rates.rules import Rates
from tests.harness.conversion import converted
from tests.harness.modules import Person, RunningModule
from tests.integration.finance.test_dashboards import answered_over
from tests.integration.finance.test_dashboards import put as put_rows
from tests.integration.finance.test_expenses import add, approver, moved

ONE, OTHER = str(new_id()), str(new_id())
RATES: dict[str, Any] = {
    "day": "2026-05-21",
    "base": "EUR",
    "source": "European Central Bank",
    "rates": {"USD": "1.0823", "JPY": "162.35"},
}


async def put(person: Person, tag: str | None = None, **changed: Any) -> Any:
    headers = None if tag is None else {"If-Match": tag}
    return await person.call("PUT", "/rates", headers=headers, json={**RATES, **changed})


async def totals(person: Person, query: str = "currency=EUR") -> Any:
    return await person.call("GET", f"/expenses/totals?{query}")


async def test_the_rates_of_a_day_are_set_and_corrected_by_who_has_seen_them(finance: RunningModule) -> None:
    person = await finance.person()
    first = await put(person)
    assert (first.status_code, first.headers["ETag"]) == (200, '"1"'), first.text
    assert {name: first.json()[name] for name in RATES} == RATES
    again = await put(person)
    assert (again.status_code, again.json()) == (200, first.json())
    changed = {"rates": {"USD": "1.0900"}}
    for tag, status, code in ((None, 428, "precondition_required"), ('"2"', 412, "version_mismatch")):
        refused = await put(person, tag, **changed)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    corrected = await put(person, '"1"', **changed)
    assert (corrected.headers["ETag"], corrected.json()["rates"]) == ('"2"', {"USD": "1.0900"})
    other = (await put(person, day="2026-05-20")).json()
    assert (await person.call("GET", "/rates")).json()["rates"] == [corrected.json(), other]
    assert (await person.call("GET", "/rates?day_from=2026-05-20&day_before=2026-05-21")).json()["rates"] == [other]
    assert (await person.call("GET", f"/rates/{other['id']}")).json() == other
    entries = (await person.call("GET", f"/rates/{first.json()['id']}/history")).json()["entries"]
    assert [each["action"] for each in entries] == ["correct", "set"]
    assert entries[0]["changes"] == {"rates": {"before": RATES["rates"], "after": {"USD": "1.0900"}}}


async def test_of_many_who_set_the_rates_of_a_day_at_once_one_does_and_the_others_are_told(
    finance: RunningModule,
) -> None:
    person = await finance.person()
    answers = await asyncio.gather(*(put(person, rates={"USD": f"1.0{number}"}) for number in range(4)))
    assert Counter(each.status_code for each in answers) == Counter({200: 1, 428: 3})


@pytest.mark.parametrize(
    ("changed", "pointer", "rule"),
    [
        ({"day": "2999-01-01"}, "/day", "rates_date_refused"),
        ({"base": "XXX"}, "/base", "currency_unknown"),
        ({"source": ""}, "/source", "string_too_short"),
        ({"rates": {}}, "/rates", "rates_invalid"),
        ({"rates": {"XXX": "1"}}, "/rates", "rates_invalid"),
        ({"rates": {"EUR": "1"}}, "/rates", "rates_invalid"),
        ({"rates": {"USD": "0"}}, "/rates", "rates_invalid"),
        ({"rates": {"USD": "1.082300123456"}}, "/rates", "rates_invalid"),
        ({"rates": {"USD": "-1"}}, "/rates/USD", "string_pattern_mismatch"),
        ({"rates": {"USD": "1e3"}}, "/rates/USD", "string_pattern_mismatch"),
        ({"rates": {"USD": 1.0823}}, "/rates/USD", "string_type"),
    ],
)
async def test_what_are_no_rates_is_refused_by_field_and_rule(
    finance: RunningModule, changed: dict[str, Any], pointer: str, rule: str
) -> None:
    person = await finance.person()
    answer = await put(person, **changed)
    assert answer.status_code == 422
    assert [(error["pointer"], error["rule"]) for error in answer.json()["errors"]] == [(pointer, rule)]
    assert (await person.call("GET", "/rates")).json()["rates"] == []


async def test_a_total_is_converted_line_by_line_with_the_rates_of_each_day(finance: RunningModule) -> None:
    person = await finance.person()
    decider = await approver(finance, person)
    await put(person)
    await put(person, day="2026-05-20", base="USD", rates={"EUR": "0.9200"})
    await add(person, amount="100", currency="EUR", incurred_on="1999-01-01")
    for _ in range(3):
        await add(person, amount="0.01", currency="USD")
    await add(person, amount="10", currency="USD", incurred_on="2026-05-20")
    submitted = await add(person, amount="162", currency="JPY")
    await moved(person, decider, submitted, "submit")
    await moved(person, decider, await add(person, amount="999", currency="EUR"), "void")
    answer = await totals(person)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "currency": "EUR",
        "states": [
            {"state": "draft", "expenses": 5, "amount": "109.23"},
            {"state": "submitted", "expenses": 1, "amount": "1.00"},
        ],
        "expenses": 6,
        "amount": "110.23",
    }
    void = (await totals(person, "currency=EUR&state=void")).json()
    assert (void["expenses"], void["amount"]) == (1, "999.00")
    narrowed = (await totals(person, "currency=USD&incurred_from=2026-05-20&incurred_before=2026-05-21")).json()
    assert (narrowed["expenses"], narrowed["amount"]) == (1, "10.00")
    assert (await totals(person, "currency=EUR&state=paid")).json()["states"] == []


async def test_each_of_a_total_is_rounded_by_itself(finance: RunningModule) -> None:
    person = await finance.person()
    await put(person, rates={"USD": "2"})
    for _ in range(3):
        await add(person, amount="0.01", currency="USD")
    # Half a cent is a cent, three times; their sum would be one and a half, which is two.
    assert (await totals(person)).json()["amount"] == "0.03"


@pytest.mark.parametrize(
    ("currency", "incurred_on"), [("USD", "2026-05-20"), ("USD", "2026-05-22"), ("CHF", "2026-05-21")]
)
async def test_without_the_rate_of_the_very_day_there_is_no_total(
    finance: RunningModule, currency: str, incurred_on: str
) -> None:
    person = await finance.person()
    await put(person)
    await add(person, currency=currency, incurred_on=incurred_on)
    refused = await totals(person)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_rate")
    assert incurred_on in refused.json()["detail"]


async def test_a_total_holds_what_is_in_scope_and_of_this_company_only(finance: RunningModule) -> None:
    admin, stranger = await finance.person(), await finance.person()
    await add(admin, amount="1", currency="EUR", business_unit_id=ONE)
    await add(admin, amount="20", currency="EUR", business_unit_id=OTHER)
    await add(admin, amount="300", currency="CHF", business_unit_id=OTHER)
    scoped = await finance.person(admin.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    assert (await totals(scoped)).json()["amount"] == "1.00"
    assert (await totals(admin)).json()["code"] == "no_rate"
    await put(stranger, rates={"CHF": "0.9500"})
    assert (await totals(admin)).json()["code"] == "no_rate"
    assert (await totals(stranger)).json() == {"currency": "EUR", "states": [], "expenses": 0, "amount": "0.00"}


async def test_a_total_is_of_one_moment(finance: RunningModule) -> None:
    person = await finance.person()
    await put(person, rates={"USD": "2"})
    await add(person, amount="10", currency="USD")
    # What is of the total's own currency was added up before, and what is of another one is behind.
    change = "update expenses set currency = 'EUR'"
    answer = await answered_over(finance, person, "/expenses/totals?currency=EUR", "day_rates", change)
    assert (answer["expenses"], answer["amount"]) == (1, "5.00")
    assert (await totals(person)).json()["amount"] == "10.00"


@pytest.mark.parametrize("query", ["currency=XXX", "currency=eur", "currency=EURO", ""])
async def test_a_total_in_no_currency_names_the_parameter(finance: RunningModule, query: str) -> None:
    person = await finance.person()
    refused = await totals(person, query)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "?currency")


async def test_rates_are_set_by_who_administers_finance_in_the_whole_company(finance: RunningModule) -> None:
    person = await finance.person()
    reader = await finance.person(person.company_id, permissions=("finance.expenses.read", "finance.expenses.write"))
    bound = await finance.person(person.company_id, scopes={"business_unit": (ONE,), "event": "*"})
    await put(person)
    for somebody, code in ((reader, "permission_missing"), (bound, "out_of_scope")):
        refused = await put(somebody, day="2026-05-20")
        assert (refused.status_code, refused.json()["code"]) == (403, code)
        assert len((await somebody.call("GET", "/rates")).json()["rates"]) == 1
    stranger = await finance.person()
    (known,) = (await person.call("GET", "/rates")).json()["rates"]
    refused = await stranger.call("GET", f"/rates/{known['id']}")
    assert (refused.status_code, refused.json()["code"]) == (404, "rates_unknown")


async def test_rates_that_are_not_there_are_not_corrected(finance: RunningModule) -> None:
    person = await finance.person()
    answer = await put(person, '"7"', day="2026-05-12")
    assert (answer.status_code, answer.json()["code"]) == (412, "version_mismatch")


async def test_a_rate_may_have_as_many_figures_as_markets_give_it(finance: RunningModule) -> None:
    person = await finance.person()
    answer = await put(person, rates={"IDR": "17025.57"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("target", ["EUR", "USD", "JPY", "BHD"])
async def test_what_postgresql_adds_up_is_what_the_rules_convert_each_to(finance: RunningModule, target: str) -> None:
    """Amounts whose halves are rounded both before and behind the base of the rates."""
    person = await finance.person()
    day, values = date(2026, 5, 20), {"USD": "0.5", "JPY": "160.5", "BHD": "0.3125"}
    await put(person, day=str(day), rates=values)
    rates = Rates(
        day=day, base="EUR", source="a bank", values={quote: Decimal(value) for quote, value in values.items()}
    )
    random = Random(3)  # noqa: S311 - a sample
    amounts = [Money(random.randrange(1, 100_000), random.choice(("EUR", "USD", "JPY", "BHD"))) for _ in range(200)]
    rows = [{"amount_minor": each.amount_minor, "currency": each.currency, "incurred_on": day} for each in amounts]
    await put_rows(finance, person, *rows)
    answer = (await totals(person, f"currency={target}")).json()
    expected = total((converted(each, target, rates) for each in amounts), target)
    assert (answer["expenses"], answer["amount"]) == (len(amounts), str(expected))
