"""Finance's cache filled anew from the log, again and again, while it is asked."""

import asyncio
import time
from pathlib import Path
from typing import Final

from cli.demo.story import MODULE
from tests.chaos.ground import ground
from tests.chaos.oracle import Answer
from tests.chaos.outcome import Outcome, judge, settle

_MEMBERS: Final = 16


async def replay(folder: Path, seed: int, minutes: float) -> Outcome:
    """Not one question is answered 503 or not at all, and none wrongly."""
    outcome = Outcome()
    async with ground(folder, seed, members=_MEMBERS) as here:
        async with asyncio.TaskGroup() as tasks:
            here.load.start(tasks, here.people.members)
            begun = time.monotonic()
            taken: list[float] = []
            while time.monotonic() < begun + minutes * 60:
                asked_at = time.monotonic()
                replayed = await here.command("replay", MODULE)
                taken.append(time.monotonic() - asked_at)
                if replayed.returncode != 0:
                    outcome.failures.append(f"kisum replay {MODULE}: {replayed.stdout}{replayed.stderr}")
                    break
            ended = time.monotonic()
            await settle(here, outcome, MODULE)
        outcome.tell(f"replays     {len(taken)}, the longest {max(taken):.1f} s with the start of the command")
        counts = here.load.counts(begun, ended)
        outcome.tell(f"meanwhile   {counts.total()} questions, {counts[Answer.UNKNOWN]} times 503")
        unavailable = [
            f"{asked.answer.value} {asked.told} at {asked.started - begun:.3f} s"
            for asked in here.oracle.asked
            if begun <= asked.started <= ended and asked.answer in {Answer.UNKNOWN, Answer.NONE}
        ]
        outcome.require("questions without a decision during replays", unavailable)
        judge(here, outcome)
    return outcome
