"""Time-driven work that outlives its failures: each is logged, and after a pause the work is tried again.

Every instance of a service runs all of its jobs, and what they do takes effect once all the same. Nobody is elected:
what is due stands in rows, such as a grant that ends or a key that is too old, and the job finds such rows and changes
them in one transaction. An instance that comes at the same time waits for their locks, or skips them, and finds them
done. One that dies takes its transaction with it, and the next to look does it.

What can be derived when it is asked for (a bill that is overdue) needs no job. A module works company by company
(`every_company`), since row-level security shows one at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from contracts.errors import DomainError

PAUSE_SECONDS: Final = 1.0

Work = Callable[[], Awaitable[object]]

_log = structlog.get_logger("kisum.jobs")


async def rest() -> None:
    """The pause before work is tried again."""
    await asyncio.sleep(PAUSE_SECONDS)


async def until_done(job: str, work: Work, pause: Work = rest) -> None:
    """Do it once; what fails is tried again until it succeeds."""
    while not await _is_done(job, work):
        await pause()


async def again_and_again(job: str, work: Work, pause: Work = rest) -> None:
    """Do it after every pause, until cancelled."""
    while True:
        await _is_done(job, work)
        await pause()


async def _is_done(job: str, work: Work) -> bool:
    try:
        await work()
    except DomainError as error:
        _log.warning("a job is not done and tried again", job=job, reason=error.code)
        return False
    except Exception:  # noqa: BLE001  it is logged, and one failure must not end the job for good
        _log.exception("a job failed unexpectedly and is tried again", job=job)
        return False
    return True
