"""Finance over a company of a million expenses: its lists, sums and dashboards over HTTP, beside the bare statements.

The service is Finance itself in a process of its own, its neighbours are played. Rows are put there by COPY; PostgreSQL
has vacuumed and analysed them, as it does by itself a while after. A bare statement is sent by asyncpg as the service's
own role, in a transaction that names the company, and its rows are read. Route and statement take turns.
"""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.bed import Bed
from benchmarks.figures import Figure, medians, percentile
from benchmarks.ledger import DAYS, Ledger
from benchmarks.programs import free_port, given, program
from benchmarks.record_log import KID, beating
from chassis.application import build_app
from chassis.paging import _cursor
from chassis.settings import read_settings
from cli import progress
from cli.demo.waiting import wait_until
from cli.running import problem_of
from cli.server import run
from contracts.identifiers import CompanyId, UserId, new_id
from contracts.topics import TOPICS
from infra.kafka.bootstrap import bootstrap
from infra.telemetry.logging import configure_logging
from middleware.chain import COMPANY_HEADER
from middleware.identity import Identity
from middleware.token import SigningKey, TokenIssuer
from services.finance.app import service
from services.finance.bills.rules import AGE_DAYS_MAX
from tests.harness.access import ROOT_KEY, access_sources, catalog, entitled, grant, signing_key
from tests.harness.modules import all_permissions
from tests.harness.services import service_database

_OTHER_COMPANIES: Final = 10
#: Parts of all expenses: what other companies have each, how many bills there are, what is exported and imported.
_OTHERS_PART: Final = 1000
_TENTH: Final = 10
_EXPORTS: Final = {"hundredth": 100, "tenth": _TENTH, "whole": 1}
_ROUNDS: Final = 3
_REQUESTS: Final = 40
#: Of what is slow fewer are asked for; the p99 of so few is the slowest.
_REQUESTS_MIN: Final = 3
_ROUND_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.02
_MEGABYTE: Final = 1_000_000
_ISSUER: Final = "benchmark"
_READY_SECONDS: Final = 120.0
_TIMEOUT_SECONDS: Final = 600.0
_IN_SPENT: Final = "state in ('approved', 'scheduled', 'paid')"
_IN_OWED: Final = "state in ('approved', 'scheduled')"
_PAGE: Final = 51


@dataclass(frozen=True)
class _Question:
    """A route, and the statements of its answer. `$1` is the company, `$2` the two units of a scoped caller."""

    name: str
    path: str
    statements: Sequence[str]
    is_scoped: bool = False


@dataclass(frozen=True)
class _Place:
    """The running service, and who asks."""

    ledger: Ledger
    expenses: int
    http: httpx.AsyncClient
    connection: asyncpg.Connection
    server: psutil.Process
    issuer: TokenIssuer
    admin: UserId
    scoped: UserId

    @property
    def units(self) -> list[UUID]:
        """Of which the scoped caller sees."""
        return [self.ledger.own("unit", number) for number in (3, 17)]

    async def headers(self, user_id: UserId) -> dict[str, str]:
        """Of a request; a token lives for ten minutes."""
        token = await self.issuer.issue(Identity(user_id, new_id(), 1), datetime.now(UTC))
        return {"Authorization": f"Bearer {token.token}", COMPANY_HEADER: str(self.ledger.company_id)}


async def measure(bed: Bed) -> list[Figure]:
    """Routes and statements in turns; after them what takes long and is done once."""
    async with _running(bed) as place:
        questions = _questions(place.ledger)
        contenders: dict[str, Callable[[], Awaitable[Mapping[str, float]]]] = {}
        for each in questions:
            contenders[each.name] = partial(_ask, place, each)
            contenders[f"{each.name}_bare"] = partial(_query, place, each)
        for contender in contenders.values():
            await contender()
        found = await medians(contenders, _ROUNDS)
        exports = [figure for name, part in _EXPORTS.items() for figure in await _export(place, name, part)]
        imports = await _import(place)
    lists = [each.name for each in questions if each.name.startswith("list")]
    shown = [each.name for each in questions if each.name.startswith("dashboard")]
    growth = {figure.name: figure.value for figure in exports}
    return [
        Figure("finance_list_p99_ms", max(found[f"{name}_p99"] for name in lists), "ms"),
        Figure("finance_dashboard_p99_ms", max(found[f"{name}_p99"] for name in shown), "ms"),
        Figure(
            "finance_export_flatness", growth["finance_export_whole_mb"] / growth["finance_export_hundredth_mb"], "x"
        ),
        *(
            Figure(f"finance_{each.name}{which}", found[f"{each.name}{which}"], "ms")
            for each in questions
            for which in ("_p50", "_p99", "_bare_p50", "_bare_p99")
        ),
        *exports,
        *imports,
    ]


def _questions(ledger: Ledger) -> list[_Question]:
    middle = ledger.today - timedelta(days=DAYS // 2)
    long_ago = ledger.today - timedelta(days=DAYS - 60)
    #: The first id of a version 7 of that day.
    middle_id = UUID(int=int(datetime.combine(middle, datetime.min.time(), UTC).timestamp() * 1000) << 80 | 7 << 76)
    sorts = {
        "created": ("order by id desc", "id < '{id}'", middle_id),
        "incurred": ("order by incurred_on desc, id desc", "(incurred_on, id) < ('{day}', '{id}')", middle),
    }
    filters = {
        "": ("", ""),
        "_state": ("&state=submitted", "state = 'submitted'"),
        "_vendor": (f"&vendor_id={ledger.own('vendor', 5)}", f"vendor_id = '{ledger.own('vendor', 5)}'"),
        "_unit": (f"&business_unit_id={ledger.own('unit', 3)}", f"business_unit_id = '{ledger.own('unit', 3)}'"),
        # Long ago, and by somebody who decided nothing: what is listed is found behind all that is newer, or nowhere.
        "_paid": (f"&paid_before={long_ago}", f"paid_on < '{long_ago}'"),
        "_decider": (f"&decided_by={ledger.own('person', 0)}", f"decided_by = '{ledger.own('person', 0)}'"),
    }
    found = []
    for sort, (order, behind, value) in sorts.items():
        name_of_sort = "-created" if sort == "created" else "-incurred_on"
        for wanted, (query, condition) in filters.items():
            for scoped in ("", "_scoped"):
                for deep in ("", "_deep"):
                    within = ["company_id = $1", *([condition] if condition else [])]
                    path = f"/expenses?sort={name_of_sort}{query}"
                    if scoped:
                        within.append("business_unit_id = any($2)")
                    if deep:
                        within.append(behind.format(day=middle, id=middle_id))
                        path += f"&cursor={_cursor(name_of_sort, value, middle_id)}"
                    statement = f"select * from expenses where {' and '.join(within)} {order} limit {_PAGE}"  # noqa: S608
                    found.append(_Question(f"list_{sort}{wanted}{deep}{scoped}", path, [statement], bool(scoped)))
    return [*found, *_sums(ledger)]


def _sums(ledger: Ledger) -> list[_Question]:
    today = ledger.today
    first = today.replace(year=today.year - 1, day=1)
    end = (today.replace(day=28) + timedelta(days=4)).replace(day=1)
    due = "coalesce(scheduled_for, incurred_on)"
    ages = " ".join(
        f"when {due} >= '{today - timedelta(days=most)}' then '{age}'" for age, most in AGE_DAYS_MAX.items()
    )
    found = []
    for party, plural in (("vendor", "vendors"), ("agency", "agencies")):
        of, days = f"{party}_id", f"'{first}' <= incurred_on and incurred_on < '{end}'"
        for scoped, within in (("", "company_id = $1"), ("_scoped", "company_id = $1 and business_unit_id = any($2)")):
            statements = [
                _added_up(f"{of}, date_trunc('month', incurred_on)::date", f"{within} and {_IN_SPENT} and {days}"),
                _added_up(f"{of}, case {ages} else 'older' end", f"{within} and {_IN_OWED}"),
            ]
            found.append(_Question(f"dashboard_{plural}{scoped}", f"/dashboards/{plural}", statements, bool(scoped)))
            if not scoped:
                found.append(_Question(f"picture_{plural}", f"/dashboards/{plural}/picture", statements))
                found.append(_Question(f"document_{plural}", f"/dashboards/{plural}/document", statements))
    ageing = (
        "select currency, due_on, count(*), sum(amount_minor - paid_minor) from bills"
        " where company_id = $1 and state in ('open', 'approved', 'part_paid') group by 1, 2"
    )
    total = (
        "select state, currency, count(*), sum(amount_minor) from expenses where {} and state <> 'void' group by 1, 2"
    )
    month = today - timedelta(days=30)
    return [
        *found,
        _Question("bills_ageing", "/bills/ageing", [ageing]),
        *(
            _Question(f"totals{name}", f"/expenses/totals?currency=EUR{query}", [total.format(within)], is_scoped)
            for name, query, within, is_scoped in (
                ("", "", "company_id = $1", False),
                ("_month", f"&incurred_from={month}", f"company_id = $1 and incurred_on >= '{month}'", False),
                ("_scoped", "", "company_id = $1 and business_unit_id = any($2)", True),
            )
        ),
    ]


def _added_up(key: str, within: str) -> str:
    return f"select {key}, currency, sum(amount_minor)::text from expenses where {within} group by 1, 2, 3"  # noqa: S608


async def _ask(place: _Place, question: _Question) -> Mapping[str, float]:
    headers = await place.headers(place.scoped if question.is_scoped else place.admin)

    async def once() -> None:
        answer = await place.http.get(question.path, headers=headers)
        if answer.status_code != httpx.codes.OK:
            raise AssertionError(f"{question.name}: {answer.status_code} {answer.text[:500]}")

    return await _times(question.name, once)


async def _query(place: _Place, question: _Question) -> Mapping[str, float]:
    company_id = place.ledger.company_id

    async def once() -> None:
        async with place.connection.transaction():
            await place.connection.execute("select set_config('app.company_id', $1, true)", str(company_id))
            for statement in question.statements:
                arguments = [company_id, place.units] if question.is_scoped else [company_id]
                await place.connection.fetch(statement, *arguments)

    return await _times(f"{question.name}_bare", once)


async def _times(name: str, once: Callable[[], Awaitable[None]]) -> Mapping[str, float]:
    taken: list[float] = []
    while len(taken) < _REQUESTS_MIN or (len(taken) < _REQUESTS and sum(taken) < _ROUND_SECONDS * 1000):
        begun = time.perf_counter()
        await once()
        taken.append((time.perf_counter() - begun) * 1000)
    return {f"{name}_p50": percentile(taken, 50), f"{name}_p99": percentile(taken, 99)}


async def _export(place: _Place, name: str, part: int) -> list[Figure]:
    """The newest of so many parts, by the days they were incurred on; about as many are given out."""
    first = place.ledger.today - timedelta(days=DAYS // part + 10)
    query = "" if part == 1 else f"?incurred_from={first}"
    headers = await place.headers(place.admin)
    lines = 0
    async with _memory(place.server) as peak:
        begun = time.perf_counter()
        async with place.http.stream("GET", f"/expenses/export{query}", headers=headers) as answer:
            if answer.status_code != httpx.codes.OK:
                raise AssertionError(f"{answer.status_code}")
            async for chunk in answer.aiter_bytes():
                lines += chunk.count(b"\n")
        taken = time.perf_counter() - begun
    return [
        Figure(f"finance_export_{name}_rows", lines - 1, "rows"),
        Figure(f"finance_export_{name}_rows_per_second", lines / taken, "1/s"),
        Figure(f"finance_export_{name}_mb", peak(), "MB"),
    ]


async def _import(place: _Place) -> list[Figure]:
    header = "description,amount,currency,incurred_on,business_unit_id,category_id,vendor_id\n"
    table = header + "".join(
        f"Expense {number},{number % 9000 + 1}.25,EUR,{place.ledger.today},{place.ledger.own('unit', number % 50)},"
        f"{place.ledger.own('category', number % 20)},{place.ledger.own('vendor', number % 200)}\n"
        for number in range(place.expenses // _TENTH)
    )
    headers = await place.headers(place.admin)
    headers |= {"Idempotency-Key": str(new_id()), "Content-Type": "text/csv"}
    async with _memory(place.server) as peak:
        begun = time.perf_counter()
        answer = await place.http.post("/expenses/import", content=table.encode(), headers=headers)
        taken = time.perf_counter() - begun
    if answer.status_code != httpx.codes.OK:
        raise AssertionError(f"{answer.status_code} {answer.text[:500]}")
    return [
        Figure("finance_import_tenth_rows", answer.json()["imported"], "rows"),
        Figure("finance_import_tenth_seconds", taken, "s"),
        Figure("finance_import_tenth_mb", peak(), "MB"),
    ]


@asynccontextmanager
async def _memory(process: psutil.Process) -> AsyncIterator[Callable[[], float]]:
    """Its largest resident set in the block, in MB, as far as looks show it."""
    largest = 0

    async def watch() -> None:
        nonlocal largest
        while True:
            largest = max(largest, process.memory_info().rss)
            await asyncio.sleep(_LOOK_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield lambda: largest / _MEGABYTE
    finally:
        watching.cancel()


@asynccontextmanager
async def _running(bed: Bed) -> AsyncIterator[_Place]:
    """The service on a filled database, with two who may do everything: everywhere, and in two units."""
    runtime = await bed.runtime()
    database = await service_database(runtime, service)
    ledger = Ledger(CompanyId(new_id()), datetime.now(UTC).date())
    with progress.step(f"{bed.expenses:,} expenses"):
        await _fill(
            ledger, bed.expenses, urlsplit(runtime.administrator_url)._replace(path=f"/{database.name}").geturl()
        )
    private_key = Ed25519PrivateKey.generate()

    async def own_key() -> SigningKey:
        return SigningKey(KID, private_key)

    issuer = TokenIssuer(issuer=_ISSUER, audience=_ISSUER, lifetime=timedelta(minutes=10), signing_key=own_key)
    admin, scoped = UserId(new_id()), UserId(new_id())
    async with AsyncExitStack() as stack:
        sources = await stack.enter_async_context(access_sources(runtime))
        topics = [topic for topic in TOPICS if service.name in topic.writers | topic.readers]
        await asyncio.to_thread(bootstrap, sources.kafka, topics, {})
        company_id = CompanyId(ledger.company_id)
        await sources.publish(signing_key(KID, private_key))
        await sources.publish(catalog(service.name))
        await sources.publish(entitled(service.name), company_id=company_id)
        units = tuple(str(ledger.own("unit", number)) for number in (3, 17))
        for user_id, scopes in (
            (admin, None),
            (scoped, {"business_unit": units, "event": "*"}),
        ):
            held = all_permissions(service.name)
            await sources.publish(grant(user_id, permissions=held, scopes=scopes), company_id=company_id)
        await stack.enter_async_context(beating(sources))
        port = free_port()
        url = database.url(runtime.administrator_url)
        environment = {
            "KISUM_FINANCE_DATABASE_URL": url,
            "KISUM_FINANCE_KAFKA_BOOTSTRAP_SERVERS": sources.kafka.bootstrap_servers,
            "KISUM_FINANCE_KAFKA_USERNAME": sources.kafka.username,
            "KISUM_FINANCE_KAFKA_PASSWORD": sources.kafka.password,
            "KISUM_FINANCE_TOPIC_PREFIX": sources.kafka.topic_prefix,
            "KISUM_FINANCE_TOKEN_ISSUER": _ISSUER,
            "KISUM_FINANCE_TOKEN_AUDIENCE": _ISSUER,
            "KISUM_FINANCE_ROOT_PUBLIC_KEY": base64.urlsafe_b64encode(ROOT_KEY.public_key().public_bytes_raw())
            .rstrip(b"=")
            .decode(),
            "KISUM_FINANCE_ACCESS_FOLDER": str(bed.folder / "finance-access"),
            "KISUM_FINANCE_FILES_URL": (bed.folder / "finance-files").as_uri(),
        }
        process = await stack.enter_async_context(
            program("benchmarks.finance", gives={"port": port}, environment=environment, log=bed.folder / "finance.log")
        )
        address, group = f"http://127.0.0.1:{port}", service.manifest.route_group
        await wait_until(
            lambda: problem_of(address, group),
            lambda problem: problem is None,
            describe="the service is ready",
            timeout_seconds=_READY_SECONDS,
        )
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"{address}{group}", trust_env=False, timeout=_TIMEOUT_SECONDS)
        )
        yield _Place(ledger, bed.expenses, http, connection, psutil.Process(process.pid), issuer, admin, scoped)


async def _fill(ledger: Ledger, expenses: int, administrator_url: str) -> None:
    """As the administrator: COPY goes past no row security otherwise."""
    connection = await asyncpg.connect(administrator_url)
    try:
        await ledger.fill(connection, expenses=expenses, bills=expenses // _TENTH)
        for _ in range(_OTHER_COMPANIES):
            other, few = Ledger(CompanyId(new_id()), ledger.today), expenses // _OTHERS_PART
            await other.fill(connection, expenses=few, bills=few // _TENTH)
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


def _serve(port: int) -> None:
    """As `kisum serve` does."""
    configure_logging()
    run(build_app(service, read_settings(service.settings)), "127.0.0.1", port)


if __name__ == "__main__":
    _serve(given()["port"])
