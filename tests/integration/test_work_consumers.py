"""Events of work take effect once; what cannot be applied is put aside with its reason, and the next one follows."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog.testing
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from confluent_kafka.admin import AdminClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import Envelope, encode, envelop
from contracts.errors import DomainError, Kind
from contracts.events.checkout import Item, TrialStarted
from contracts.identifiers import new_id
from infra.kafka.work import ParkError, ParkRate, WorkConsumer, WorkConsumers
from tests.harness.clock import FakeClock
from tests.harness.runtime import Runtime
from tests.harness.waiting import wait_until
from tests.integration.outbox.parts import COMPANY, NOW, SUBSCRIPTIONS, Owner, new_owner

DEAD_LETTERS = "entitlements.dead-letters.v1"


class DownError(DomainError):
    kind = Kind.UNAVAILABLE
    code = "down"
    title = "Something is down"


class UnknownPackageError(DomainError):
    kind = Kind.NOT_FOUND
    code = "unknown_package"
    title = "The catalog has no such package"


Handle = Callable[[AsyncSession, Envelope[Any]], Any]


@pytest_asyncio.fixture(loop_scope="session")
async def core(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Owner]:
    async with new_owner(runtime, tmp_path, "entitlements") as found:
        yield found


@asynccontextmanager
async def consuming(core: Owner, handle: Handle, **other: Any) -> AsyncIterator[WorkConsumers]:
    consumers = WorkConsumers(
        core.kafka,
        core.database,
        "entitlements",
        [WorkConsumer("subscriptions", SUBSCRIPTIONS, handle)],
        FakeClock(),
        **other,
    )
    await consumers.start()
    try:
        yield consumers
    finally:
        await consumers.stop()


def trial(package: str = "basic_venue") -> Envelope[TrialStarted]:
    fact = TrialStarted(
        subscription_id=new_id(), items=(Item(kind="package", key=package),), effective_at=NOW, trial_end=NOW
    )
    return envelop(
        fact, occurred_at=NOW, company_id=COMPANY, actor_user_id=None, epoch=1, version=1, correlation_id=new_id()
    )


async def send(core: Owner, *values: bytes | None, headers: Any = (), key: bytes | None = None) -> None:
    producer = AIOKafkaProducer(**core.admin.aiokafka())
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(
                core.admin.topic_prefix + SUBSCRIPTIONS.name,
                value,
                key=str(COMPANY).encode() if key is None else key,
                headers=list(headers),
            )
    finally:
        await producer.stop()


async def apply(work: AsyncSession, envelope: Envelope[Any]) -> None:
    """The effect: a row that counts how often it was made."""
    await work.execute(
        text(
            "insert into members values (:key, 1, 'active')"
            " on conflict (key) do update set version = members.version + 1"
        ),
        {"key": str(envelope.event_id)},
    )


async def applied(core: Owner) -> dict[str, int]:
    return {row["key"]: row["version"] for row in await core.rows("select key, version from members")}


async def committed(core: Owner) -> int:
    admin = AIOKafkaAdminClient(**core.admin.aiokafka())
    await admin.start()
    try:
        group = f"{core.admin.topic_prefix}entitlements.subscriptions"
        try:
            offsets = await admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:
            return 0
        return sum(max(0, found.offset) for found in offsets.values())
    finally:
        await admin.close()


async def test_an_event_delivered_twice_takes_effect_once(core: Owner) -> None:
    twice, after = trial(), trial()
    await send(core, encode(twice), encode(twice), encode(after))
    async with consuming(core, apply):
        await wait_until(lambda: committed(core), lambda n: n == 3, describe="all are consumed")
    assert await applied(core) == {str(twice.event_id): 1, str(after.event_id): 1}


async def test_of_several_servers_one_that_answers_is_enough(core: Owner) -> None:
    event = trial()
    kafka = replace(core.kafka, bootstrap_servers=f"127.0.0.1:1, {core.kafka.bootstrap_servers}")
    await send(core, encode(event))
    async with consuming(replace(core, kafka=kafka), apply):
        await wait_until(lambda: applied(core), lambda found: found == {str(event.event_id): 1}, describe="applied")


async def test_an_event_is_applied_as_work_of_its_company(core: Owner) -> None:
    """Row-level security shows a service that is fenced nothing else."""
    companies = []

    async def handle(work: AsyncSession, _: Envelope[Any]) -> None:
        companies.append(await work.scalar(text("select current_setting('app.company_id', true)")))

    await send(core, encode(trial()))
    async with consuming(core, handle):
        await wait_until(lambda: committed(core), lambda n: n == 1, describe="it is consumed")
    assert companies == [str(COMPANY)]


async def test_a_consumer_without_an_inbox_applies_what_comes_again(core: Owner) -> None:
    twice = trial()
    await send(core, encode(twice), encode(twice))
    consumer = WorkConsumer("subscriptions", SUBSCRIPTIONS, apply, has_inbox=False)
    consumers = WorkConsumers(core.kafka, core.database, "entitlements", [consumer], FakeClock())
    await consumers.start()
    try:
        await wait_until(lambda: committed(core), lambda n: n == 2, describe="both are consumed")
    finally:
        await consumers.stop()
    assert await applied(core) == {str(twice.event_id): 2}
    assert await core.rows("select event_id from inbox") == []


async def test_a_consumer_that_fails_after_its_effect_and_retries_applies_it_once(core: Owner) -> None:
    tries = []

    async def fails_twice(work: AsyncSession, envelope: Envelope[Any]) -> None:
        await apply(work, envelope)
        tries.append(envelope.event_id)
        if len(tries) == 1:
            raise DownError
        if len(tries) == 2:
            raise RuntimeError("nobody expected this")

    event = trial()
    await send(core, encode(event))
    async with consuming(core, fails_twice):
        await wait_until(lambda: committed(core), lambda n: n == 1, describe="it is consumed")
    assert tries == [event.event_id] * 3
    assert await applied(core) == {str(event.event_id): 1}
    assert await core.log_of(DEAD_LETTERS) == []


async def test_an_effect_whose_offset_was_not_committed_is_found_in_the_inbox(core: Owner) -> None:
    """As after kill -9 between the transaction and the commit of the offset."""
    event = trial()
    await send(core, encode(event))
    async with consuming(core, apply):
        await wait_until(lambda: committed(core), lambda n: n == 1, describe="it is consumed")
    admin = AdminClient(core.admin.confluent())
    for answer in admin.delete_consumer_groups([f"{core.admin.topic_prefix}entitlements.subscriptions"]).values():
        await asyncio.to_thread(answer.result)
    async with consuming(core, apply):
        await wait_until(lambda: committed(core), lambda n: n == 1, describe="it is consumed again")
    assert await applied(core) == {str(event.event_id): 1}


async def test_what_cannot_be_applied_is_parked_as_it_was_with_the_reason_and_the_next_follows(core: Owner) -> None:
    async def handle(work: AsyncSession, envelope: Envelope[Any]) -> None:
        await apply(work, envelope)
        if envelope.data.items[0].key == "basic_nothing":
            raise UnknownPackageError("basic_nothing is in no catalog")
        if envelope.data.items[0].key == "basic_never":
            raise ParkError("never")
        if envelope.data.items[0].key == "basic_defect":
            raise ZeroDivisionError

    good = trial()
    unknown, never, defect = trial("basic_nothing"), trial("basic_never"), trial("basic_defect")
    foreign_type = encode(good).replace(b"checkout.trial-started.v1", b"checkout.something-else.v1")
    wrong_type = encode(good).replace(b'"version":1', b'"version":"one"')
    parked = [b"{not json", wrong_type, foreign_type, None, encode(unknown), encode(never), encode(defect)]
    odd_header = [("origin", b"\xff\xfe"), ("origin", b"twice")]
    await send(core, *parked, headers=odd_header)
    await send(core, encode(good), key=b"another company")
    await send(core, encode(good))
    async with consuming(core, handle):
        found = await wait_until(
            lambda: core.log_of(DEAD_LETTERS), lambda records: len(records) == 8, describe="all are parked"
        )
        await wait_until(lambda: committed(core), lambda n: n == 9, describe="the offset moved on")
    assert await applied(core) == {str(good.event_id): 1}
    by_offset = {(dict(record.headers)["dead-letter-partition"], record.offset): record for record in found}
    originals = [record for record in by_offset.values() if record.key == str(COMPANY).encode()]
    assert [record.value for record in originals] == parked
    assert all(record.headers[:2] == tuple(odd_header) for record in originals)
    told = [
        (dict(record.headers)["dead-letter-code"], dict(record.headers)["dead-letter-reason"]) for record in originals
    ]
    assert told[0][1].startswith(b"MalformedEventError: not JSON")
    assert told[1][1].startswith(b"MalformedEventError: checkout.trial-started.v1: /version")
    assert told[2][1].startswith(b"UnknownEventTypeError")
    assert told[3:] == [
        (b"undecodable", b"a record without a value"),
        (b"unknown_package", b"basic_nothing is in no catalog"),
        (b"parked", b"never"),
        (b"unexpected", b"ZeroDivisionError"),
    ]
    (stray,) = (record for record in found if record.key == b"another company")
    assert dict(stray.headers)["dead-letter-reason"] == b"the record's key is not the event's"


async def test_what_fills_a_log_that_was_lost_is_no_dead_letter(core: Owner) -> None:
    event = trial()
    await send(core, *[None] * 100, key=b"")
    await send(core, encode(event))
    async with consuming(core, apply):
        await wait_until(lambda: applied(core), bool, describe="what follows is applied")
        await wait_until(lambda: committed(core), lambda n: n == 101, describe="the offset moved on")
    assert await core.log_of(DEAD_LETTERS) == []


async def test_a_dead_letter_that_cannot_be_written_is_not_lost(core: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    await send(core, b"{not json")
    right = core.admin.topic_prefix
    consumers = WorkConsumers(
        core.kafka, core.database, "entitlements", [WorkConsumer("subscriptions", SUBSCRIPTIONS, apply)], FakeClock()
    )
    monkeypatch.setattr("infra.kafka.work.REQUEST_TIMEOUT_SECONDS", 0.5)
    # A topic the principal may not write to, as where a broker refuses it for a while.
    consumers._dead_letters._topic = f"{right}entitlements.not-there.v1"
    await consumers.start()
    try:
        await wait_until(
            lambda: asyncio.sleep(0, consumers._dead_letters.failures), lambda n: n >= 2, describe="writing it failed"
        )
        assert await committed(core) == 0
        consumers._dead_letters._topic = f"{right}{DEAD_LETTERS}"
        await wait_until(lambda: committed(core), lambda n: n == 1, describe="it is parked in the end")
    finally:
        await consumers.stop()
    (record,) = await core.log_of(DEAD_LETTERS)
    assert record.value == b"{not json"


async def test_a_consumer_that_parks_too_much_stops_and_loses_nothing(core: Owner) -> None:
    await send(core, *(b"no" for _ in range(5)))
    async with consuming(core, apply, park_rate=ParkRate(3, timedelta(minutes=1))) as consumers:
        await wait_until(lambda: asyncio.sleep(0, consumers.stopped), bool, describe="it stops")
        assert "subscriptions" in consumers.stopped
    assert await committed(core) == 3
    assert len(await core.log_of(DEAD_LETTERS)) == 3
    async with consuming(core, apply):
        await wait_until(lambda: committed(core), lambda n: n == 5, describe="the rest after a new start")


async def test_what_is_not_done_with_is_lag_and_each_outcome_is_counted(core: Owner) -> None:
    may_go_on = asyncio.Event()

    async def waits(work: AsyncSession, envelope: Envelope[Any]) -> None:
        await may_go_on.wait()
        await apply(work, envelope)

    twice = trial()
    await send(core, encode(twice), encode(twice), b"{not json")
    async with consuming(core, waits) as consumers:

        async def behind() -> int:
            lags = await consumers.lags()
            assert {(lag.consumer, lag.topic) for lag in lags} <= {("subscriptions", SUBSCRIPTIONS.name)}
            return sum(lag.records for lag in lags)

        try:
            await wait_until(behind, lambda records: records == 3, describe="the one in hand counts")
            assert set(consumers.outcomes["subscriptions"].values()) == {0}
        finally:
            may_go_on.set()
        await wait_until(behind, lambda records: records == 0, describe="all is done with")
        assert consumers.outcomes == {"subscriptions": {"done": 1, "duplicate": 1, "retry": 0, "park": 1}}


async def test_consumers_start_while_kafka_is_away(core: Owner) -> None:
    away = replace(core.kafka, bootstrap_servers="127.0.0.1:1")
    consumers = WorkConsumers(
        away, core.database, "entitlements", [WorkConsumer("subscriptions", SUBSCRIPTIONS, apply)], FakeClock()
    )
    await consumers.start()
    await consumers.stop()


async def test_consumers_that_cannot_be_started_say_so_and_are_tried_again(core: Owner) -> None:
    nowhere = replace(core.kafka, bootstrap_servers="127.0.0.1:no-port")
    consumer = WorkConsumer("subscriptions", SUBSCRIPTIONS, apply_nothing)
    consumers = WorkConsumers(nowhere, core.database, "entitlements", [consumer], FakeClock())

    async def told() -> int:
        return sum(line["event"].startswith("consumers could not be started") for line in lines)

    with structlog.testing.capture_logs() as lines:
        await consumers.start()
        await wait_until(told, lambda count: count > 1, describe="it is told, again and again")
        await consumers.stop()


async def apply_nothing(_work: AsyncSession, _envelope: Envelope[Any]) -> None: ...
