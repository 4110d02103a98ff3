"""What a scenario came to, and what is told of every one."""

import asyncio
import os
import statistics
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cli.demo.story import MODULE
from tests.chaos.ground import BOUND_SECONDS, Ground
from tests.chaos.oracle import Answer
from tests.chaos.people import is_set_within

_SHOWN_MAX: Final = 10


@dataclass
class Outcome:
    """Lines for a person, and what must not have been."""

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def require(self, what: str, found: Sequence[object]) -> None:
        """Note what must not be there, where it is."""
        if found:
            shown = "\n    ".join(str(each) for each in found[:_SHOWN_MAX])
            self.failures.append(f"{what}: {len(found)}\n    {shown}")


def judge(ground: Ground[Any], outcome: Outcome) -> None:
    """What the oracle finds, and the figures of the whole run."""
    found = ground.oracle.judge()
    counts, writes = ground.load.counts(), ground.people.counts
    asked = sum(counts.values())
    answered = counts[Answer.ALLOWED] + counts[Answer.REFUSED]
    outcome.tell(
        f"questions   {asked}: {counts[Answer.ALLOWED]} allowed, {counts[Answer.REFUSED]} refused, "
        f"{counts[Answer.UNKNOWN]} times 503, {counts[Answer.NONE]} without an answer; "
        f"available {answered / asked:.2%}"
    )
    outcome.tell(
        f"writes      {writes.acknowledged} acknowledged, {writes.unanswered} without an answer, "
        f"of which {writes.unanswered_took_effect} had taken effect"
    )
    revocations = ground.oracle.revocations()
    if len(revocations) > 1:
        cuts = statistics.quantiles(revocations, n=1000, method="inclusive")
        p50, p99, p999 = (f"{cuts[number] * 1000:.0f} ms" for number in (499, 989, 998))
        outcome.tell(
            f"revocations {len(revocations)}: acknowledged → first refusal p50 {p50}, p99 {p99}, p99.9 {p999}, "
            f"longest {revocations[-1]:.1f} s"
        )
    outcome.tell(
        f"over-grants {len(found.over_grants)}, under-grants {len(found.under_grants)}, bound {BOUND_SECONDS:g} s; "
        f"the last time somebody was let in was {found.longest_allow_seconds * 1000:.0f} ms after the answer to the "
        "revocation"
    )
    outcome.tell(f"load        {', '.join(f'{average:.1f}' for average in os.getloadavg())} on {os.cpu_count()} cores")
    outcome.require("over-grants", found.over_grants)
    outcome.require("under-grants", found.under_grants)
    outcome.require(
        "answers that are never right", [f"{each.subject} {each.question} {each.told}" for each in found.wrong]
    )


async def kill_under_load(
    ground: Ground[Any],
    outcome: Outcome,
    minutes: float,
    kill_until: Callable[[asyncio.Event, Ground[Any], Counter[str]], Coroutine[Any, Any, None]],
) -> Counter[str]:
    """Change everybody's rights and ask for them, while `kill_until` kills; who was killed how often."""
    killed: Counter[str] = Counter()
    async with asyncio.TaskGroup() as tasks:
        ground.load.start(tasks, ground.people.members)
        over = asyncio.Event()
        killing = tasks.create_task(kill_until(over, ground, killed))
        await is_set_within(over, minutes * 60)
        over.set()
        await killing
        await settle(ground, outcome, MODULE)
    told = ", ".join(f"{name} {number}" for name, number in sorted(killed.items()))
    outcome.tell(f"kills       {killed.total()}: {told}")
    return killed


async def settle(ground: Ground[Any], outcome: Outcome, *services: str) -> None:
    """Let it become quiet: what Auth holds is what was written, the caches are what it holds, and Finance says so."""
    await ground.load.stop_writing()
    await ground.ready("auth", "entitlements", *services)
    outcome.require("acknowledged writes that are not in Auth's rows", await ground.people.lost())
    await ground.agree(*services)
    for service in services:
        verified = await ground.command("cache", "verify", service)
        told = (verified.stdout + verified.stderr).strip().splitlines()
        outcome.tell(f"verify      {told[-1]}")
        if verified.returncode != 0:
            outcome.require(f"kisum cache verify {service}", told)
    outcome.require("answers in the end", ground.load.differing(await ground.load.ask_all()))
    ground.load.stop()
