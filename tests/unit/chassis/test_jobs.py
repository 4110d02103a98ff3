"""Time-driven work goes on after whatever happens to it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog.testing

from chassis.jobs import again_and_again, until_done
from contracts.errors import DomainError, Kind


class AwayError(DomainError):
    kind = Kind.UNAVAILABLE
    code = "away"
    title = "Away"


class Work:
    """Fails with each of these in turn, then succeeds."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = self.pauses = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)

    async def pause(self) -> None:
        self.pauses += 1
        if self.pauses == 4:
            raise asyncio.CancelledError


@pytest.fixture
def work() -> Work:
    return Work(AwayError("for a moment"), ZeroDivisionError("nobody expected it"))


async def test_what_is_done_once_is_tried_until_it_succeeds_and_each_failure_is_told(work: Work) -> None:
    with structlog.testing.capture_logs() as lines:
        await until_done("publish", work, work.pause)
    assert (work.calls, work.pauses) == (3, 2)
    assert [(line["log_level"], line["job"]) for line in lines] == [("warning", "publish"), ("error", "publish")]


async def test_what_is_done_again_and_again_goes_on_after_a_failure(work: Work) -> None:
    with pytest.raises(asyncio.CancelledError):
        await again_and_again("close", work, work.pause)
    assert work.calls == 4


@pytest.mark.parametrize("run", [until_done, again_and_again])
async def test_a_cancellation_ends_both(run: Callable[..., Awaitable[None]]) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run("any", cancelled)
