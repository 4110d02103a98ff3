"""What ends beside the handlers, and ought not to have, is seen in the log and by whoever asks for readiness."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing

from chassis.application import build_app
from chassis.background import Background, BackgroundEndedError
from infra.kafka.probe import KafkaProbe
from infra.kafka.work import WorkConsumers
from services.auth.app import service as auth
from services.auth.settings import AuthSettings
from services.finance.app import service as finance
from services.finance.settings import FinanceSettings
from tests.harness.waiting import wait_until
from tests.unit.chassis.test_application import SETTINGS


async def fails() -> None:
    raise ZeroDivisionError


async def returns() -> None:
    """As something that is done."""


async def is_cancelled() -> None:
    """As by a library that lets a cancellation of its own through."""
    raise asyncio.CancelledError


async def runs() -> None:
    await asyncio.Event().wait()


async def until_ended(background: Background, name: str) -> None:
    async def ended() -> str | None:
        try:
            await background.check()
        except BackgroundEndedError as error:
            return error.detail
        return None

    await wait_until(ended, lambda ended: ended == name, describe=f"{name} has ended")


@pytest.mark.parametrize(
    ("work", "reason"), [(fails, "ZeroDivisionError()"), (returns, "it returned"), (is_cancelled, "CancelledError()")]
)
async def test_what_ends_by_itself_is_named_as_long_as_the_process_lives(work: Any, reason: str) -> None:
    background = Background()
    with structlog.testing.capture_logs() as lines:
        async with background.running("feed", work()), background.running("relay", runs()):
            await until_ended(background, "feed")
        await until_ended(background, "feed")
    assert [(line["log_level"], line["part"], line["reason"]) for line in lines] == [("critical", "feed", reason)]


async def test_what_is_ended_is_no_defect_nor_is_what_may_end() -> None:
    background = Background()
    with structlog.testing.capture_logs() as lines:
        done = asyncio.Event()

        async def is_done() -> None:
            done.set()

        async with background.running("feed", runs()), background.running("job", is_done(), may_end=True):
            await done.wait()
        await background.check()
    assert lines == []


async def test_what_may_end_must_not_fail() -> None:
    background = Background()
    with structlog.testing.capture_logs():
        async with background.running("job", fails(), may_end=True):
            await until_ended(background, "job")


@asynccontextmanager
async def readiness_of(**changed: Any) -> AsyncIterator[Any]:
    app = build_app(replace(auth, **changed), AuthSettings(**SETTINGS))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client,
    ):

        async def detail() -> str:
            return str((await client.get("/api/auth/readyz")).json()["detail"])

        yield detail


async def test_a_dead_job_is_not_ready() -> None:
    async def broken_job(*_: Any) -> None:
        raise ZeroDivisionError

    async def short_job(*_: Any) -> None:
        """Done at once."""

    async with readiness_of(jobs=(broken_job, short_job)) as detail:
        found = await wait_until(detail, lambda detail: "background" in detail, describe="the job's end is seen")
    assert "background: a part of the service has ended (broken_job)" in found


async def test_a_consumer_that_stopped_itself_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[WorkConsumers] = []

    class Noted(WorkConsumers):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr("chassis.application.WorkConsumers", Noted)
    async with readiness_of(jobs=()) as detail:
        assert "consumers" not in await detail()
        made[0].stopped["entitlements"] = "too many records could not be applied"
        assert "consumers: a consumer has stopped (entitlements: too many records" in await detail()


def test_only_a_service_without_an_access_cache_asks_kafka_whether_it_is_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[KafkaProbe] = []

    class Noted(KafkaProbe):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            built.append(self)

    monkeypatch.setattr("chassis.application.KafkaProbe", Noted)
    common = {name: value for name, value in SETTINGS.items() if "key" not in name}
    own = {"root_public_key": "A" * 43, "access_folder": tmp_path / "access", "files_url": tmp_path.as_uri()}
    build_app(finance, FinanceSettings.model_validate({**common, **own}))
    assert built == []
    build_app(auth, AuthSettings(**SETTINGS))
    assert len(built) == 1
