"""What Prometheus is told, asked as it asks: over HTTP, of services of the real code on a real Kafka and PostgreSQL."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from access.ingest import MEMBERSHIPS
from chassis.metrics import METRICS, ServiceMetrics
from cli.metrics import metrics_given_out
from contracts.identifiers import CompanyId, new_id
from infra.embedded.state import is_free
from infra.kafka.clients import KafkaClients
from services.auth.app import service as auth
from services.entitlements.app import service as entitlements
from services.finance.app import service as finance
from services.finance.projections.events import EVENTS
from tests.harness.modules import RunningModule, running_module
from tests.harness.monitoring import asked_for, expressions
from tests.harness.runtime import Runtime
from tests.harness.services import running_service
from tests.harness.waiting import wait_until
from tests.integration.auth.conftest import KEYS
from tests.integration.outbox.parts import Owner, new_owner, running

_EXPENSE: Final = {"description": "Stage", "amount": "1200.50", "currency": "USD", "incurred_on": "2026-05-21"}
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-")
#: What each kind of service has no part for: Auth judges by its rows, finance publishes nothing, and nobody beats here
#: for Core, which applies nothing before that.
_NOT_OF: Final = {
    "auth": r"kisum_access_(?!decisions)",
    "entitlements": r"kisum_access_(state_age|applied)",
    "finance": r"kisum_outbox_",
}


@dataclass
class Scraped:
    """What was told: names, labels, values."""

    samples: Sequence[tuple[str, Mapping[str, str], float]]
    page: str = ""

    def __getitem__(self, asked: str) -> float:
        """The one value with this name and these labels, as in PromQL: name{label="value"}. Raises ValueError."""
        (value,) = self.values(asked)
        return value

    def values(self, asked: str) -> list[float]:
        name, _, matchers = asked.partition("{")
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', matchers))
        return [value for found, labels, value in self.samples if found == name and wanted.items() <= labels.items()]


Scrape = Callable[[], Awaitable[Scraped]]


@asynccontextmanager
async def scraping(*services: ServiceMetrics) -> AsyncIterator[Scrape]:
    """These services, in one process."""
    async with metrics_given_out(services, "127.0.0.1", [0]) as port, httpx.AsyncClient(trust_env=False) as client:

        async def scrape() -> Scraped:
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            assert answer.status_code == 200
            samples = [
                (sample.name, sample.labels, sample.value)
                for family in text_string_to_metric_families(answer.text)
                for sample in family.samples
            ]
            return Scraped(samples, answer.text)

        yield scrape


def reading(metrics: ServiceMetrics) -> Scrape:
    """The same without the listener."""

    async def read() -> Scraped:
        found = await metrics.read()
        return Scraped(
            [(each.metric.name, dict(zip(each.metric.labels, each.labels, strict=True)), each.value) for each in found]
        )

    return read


async def until(scrape: Scrape, asked: str, accepted: Callable[[float], bool]) -> None:
    async def read() -> list[float]:
        return (await scrape()).values(asked)

    await wait_until(read, lambda found: len(found) == 1 and accepted(found[0]), describe=asked)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def module(runtime: Runtime, tmp_path_factory: Any) -> AsyncIterator[RunningModule]:
    folder = tmp_path_factory.mktemp("finance")
    async with running_module(runtime, finance, folder, cheap_path="/expenses?limit=1") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scrape(module: RunningModule) -> AsyncIterator[Scrape]:
    async with scraping(module.app.state.metrics) as scrape:
        yield scrape


@pytest_asyncio.fixture(loop_scope="session")
async def owner(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Owner]:
    async with new_owner(runtime, tmp_path) as found:
        yield found


async def test_services_of_each_kind_give_out_what_there_is_and_what_alerts_and_dashboard_ask_for(
    runtime: Runtime, tmp_path: Path, module: RunningModule
) -> None:
    cached = {"root_public_key": "A" * 43, "access_folder": tmp_path / "access"}
    async with (
        running_service(runtime, auth, KEYS) as people,
        running_service(runtime, entitlements, cached) as core,
        scraping(*(each.app.state.metrics for each in (people, core, module))) as scrape,
    ):
        names = {
            name: {metric.name for metric in METRICS if not re.match(absent, metric.name)}
            for name, absent in _NOT_OF.items()
        }

        async def found() -> dict[str, set[str]]:
            samples = (await scrape()).samples
            return {
                service: {name for name, labels, _ in samples if labels.get("service") == service}
                for service in _NOT_OF
            }

        await wait_until(found, lambda given: given == names, describe="each gives out what it has")
        page = await scrape()
    given: dict[str, frozenset[str]] = {name: frozenset(labels) for name, labels, _ in page.samples}
    assert {name for name in given if name.startswith("kisum_")} == {metric.name for metric in METRICS}
    asked = {each for expression in expressions().values() for each in asked_for(expression)}
    for name, labels in asked:
        # Of the target itself Prometheus makes `up`, and puts two labels on everything.
        assert name == "up" or labels - {"job", "instance"} <= given[name]
    assert page.page.count("# TYPE kisum_http_requests_total counter") == 1, "one page of several services"


async def test_decisions_are_counted_by_reason_and_nobody_is_named(module: RunningModule, scrape: Scrape) -> None:
    await module.sources.beat()
    reader = await module.person(permissions=["finance.expenses.read"])
    stranger = replace(reader, company_id=CompanyId(new_id()))
    bounded = await module.person(scopes={})
    before = await scrape()

    answers = [
        await reader.call("GET", "/expenses?limit=1"),
        await reader.call("GET", "/expenses/nothing-there"),
        await reader.call("GET", "/no-such-route"),
        await reader.call("POST", "/expenses", json={}),
        await stranger.call("GET", "/expenses?limit=1"),
        await bounded.call("POST", "/expenses", json=_EXPENSE),
        await module.client.get("/api/finance/expenses"),
    ]

    assert [answer.status_code for answer in answers] == [200, 422, 404, 403, 403, 403, 401]
    after = await scrape()

    def counted(asked: str) -> float:
        return after[asked] - sum(before.values(asked))

    reasons = {labels["reason"] for name, labels, _ in after.samples if name == "kisum_access_decisions_total"}
    counts = {reason: counted(f'kisum_access_decisions_total{{reason="{reason}"}}') for reason in reasons}
    assert {reason: count for reason, count in counts.items() if count} == {
        "allowed": 2,
        "permission_missing": 1,
        "not_a_member": 1,
        "out_of_scope": 1,
    }
    assert {"state_unknown", "base_inactive"} <= reasons, "from nothing to one Prometheus sees no increase"
    statuses = {status: counted(f'kisum_http_requests_total{{status="{status}"}}') for status in (200, 401, 403, 500)}
    assert statuses == {200: 1, 401: 1, 403: 3, 500: 0}
    assert not _UUID.search(after.page)
    assert (await module.client.get("/metrics")).status_code == 404
    assert (await module.client.get("/api/finance/metrics")).status_code == 404


async def test_what_the_access_path_must_be_watched_for(module: RunningModule) -> None:
    watched = ServiceMetrics("finance", consumers=None)
    watched.access_path = module.app.state.access_path
    scrape = reading(watched)
    of_auth = 'kisum_access_state_age_seconds{owner="auth"}'
    await module.sources.beat(as_of=datetime.now(UTC) - timedelta(seconds=60))
    await until(scrape, of_auth, lambda age: 60 <= age < 120)
    assert (await scrape())["kisum_access_ready"] == 1
    await module.sources.beat(as_of=datetime.now(UTC) - timedelta(seconds=400))
    await until(scrape, "kisum_access_ready", lambda ready: ready == 0)
    await module.sources.beat()
    await until(scrape, "kisum_access_ready", lambda ready: ready == 1)
    assert (await scrape())[of_auth] < 60

    def applied(page: Scraped) -> float:
        return sum(page.values(f'kisum_access_applied_position{{topic="{MEMBERSHIPS}"}}'))

    page = await scrape()
    before, quarantined = applied(page), 'kisum_access_quarantined_keys{kind="membership"}'
    assert (page[quarantined], page["kisum_access_quarantined_partitions"]) == (0, 0)
    await module.sources.send_raw(MEMBERSHIPS, f"{new_id()}/{new_id()}".encode(), b"{")
    await module.sources.send_raw(MEMBERSHIPS, b"no key at all", b"{", partition=0)
    await until(scrape, "kisum_access_quarantined_partitions", lambda count: count == 1)
    await until(scrape, quarantined, lambda count: count == 1)
    assert applied(await scrape()) == before + 2


async def test_a_record_that_is_parked_is_counted(module: RunningModule, scrape: Scrape) -> None:
    parked = f'kisum_consumer_records_total{{consumer="{EVENTS.consumer.name}",outcome="park"}}'
    assert (await scrape())[parked] == 0
    await module.sources.send_raw(EVENTS.topic.name, b"no event", b"{")
    await until(scrape, parked, lambda count: count == 1)
    lag = f'kisum_consumer_lag_records{{consumer="{EVENTS.consumer.name}"}}'
    assert sum((await scrape()).values(lag)) == 0


async def test_while_nobody_knows_where_logs_end_all_else_is_told(
    module: RunningModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.metrics._LAG_TIMEOUT_SECONDS", 0)
    found = await reading(module.app.state.metrics)()
    assert not found.values("kisum_consumer_lag_records")
    assert found.values("kisum_consumer_stopped") == [0, 0]
    assert found.values("kisum_access_ready")


async def test_a_process_that_hangs_answers_that_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.metrics._ANSWER_SECONDS", 0.05)
    services = [ServiceMetrics("auth", consumers=None)]
    async with metrics_given_out(services, "127.0.0.1", [0]) as port:
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(httpx.get, f"http://127.0.0.1:{port}/metrics", trust_env=False)
            # It holds up the loop.
            answer = asked.result(timeout=10)
    assert answer.status_code == 500


async def test_the_outbox_grows_while_kafka_is_away_and_one_of_two_leads(owner: Owner) -> None:
    away = KafkaClients(replace(owner.kafka, bootstrap_servers="127.0.0.1:1"))
    first, second = (ServiceMetrics("auth", consumers=None) for _ in range(2))
    of_first, of_second = reading(first), reading(second)
    async with AsyncExitStack() as later:
        async with running(owner.relay(kafka=away)) as first.relay:
            await until(of_first, "kisum_outbox_leader", lambda leads: leads == 1)
            second.relay = await later.enter_async_context(running(owner.relay()))
            await owner.write(1)
            await owner.write(2)
            await until(of_first, "kisum_outbox_pending_rows", lambda rows: rows == 2)
            age = (await of_first())["kisum_outbox_oldest_pending_age_seconds"]
            await until(of_first, "kisum_outbox_oldest_pending_age_seconds", lambda now: now > age > 0)
            page = await of_second()
            assert page["kisum_outbox_leader"] == 0
            assert not page.values("kisum_outbox_pending_rows"), "only the leader has looked"

        await until(of_second, "kisum_outbox_leader", lambda leads: leads == 1)
        await until(of_second, "kisum_outbox_pending_rows", lambda rows: rows == 0)
        assert (await of_first())["kisum_outbox_leader"] == 0
        await until(of_second, "kisum_outbox_held_back", lambda held_back: held_back == 0)
        page = await of_second()
        assert (page["kisum_outbox_lost_logs"], page["kisum_outbox_set_aside_rows"]) == (0, 0)


async def test_each_worker_has_a_port_and_one_without_serves_all_the_same() -> None:
    async with metrics_given_out((), "127.0.0.1", [0]) as taken:
        assert taken is not None
        async with metrics_given_out((), "127.0.0.1", [taken]) as none:
            assert none is None
        async with metrics_given_out((), "127.0.0.1", [taken, 0]) as another:
            assert another not in {None, taken}
    assert is_free(taken), "a successor takes it"
