"""Each container killed and started again, one broker of three at a time, while rights are given and taken away."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Final

from cli.demo.containers import Containers
from cli.registry import service_names
from tests.chaos.ground import Ground, ground_in_containers
from tests.chaos.outcome import Outcome, judge, kill_under_load
from tests.chaos.people import is_set_within

_MEMBERS: Final = 8
_PAUSE_SECONDS: Final = 4.0
#: How long a broker is away: longer than its controllers wait for it.
_BROKER_AWAY_SECONDS: Final = 15.0
_BROKERS: Final = ("kafka-1", "kafka-2", "kafka-3")


async def containers(folder: Path, seed: int, minutes: float) -> Outcome:
    """Everything that can be lost is lost, one after the other, again and again."""
    outcome = Outcome()
    async with ground_in_containers(folder, seed, members=_MEMBERS) as here:
        killed = await kill_under_load(here, outcome, minutes, _kill_until)
        outcome.require("what was never killed", sorted({*service_names(), *_BROKERS} - killed.keys()))
        judge(here, outcome)
    return outcome


async def _kill_until(over: asyncio.Event, here: Ground[Containers], killed: Counter[str]) -> None:
    """Each once in an order of its own, and then again, until it is over; the first round is made whole."""
    while not over.is_set() or len(killed) < len(service_names()) + len(_BROKERS):
        victims = [*service_names(), *_BROKERS]
        here.random.shuffle(victims)
        for victim in victims:
            await here.system.kill(victim)
            killed[victim] += 1
            away = _BROKER_AWAY_SECONDS if victim in _BROKERS else _PAUSE_SECONDS
            await is_set_within(asyncio.Event(), away)
            await here.system.resume()
            await here.system.healthy(victim)
            if over.is_set() and len(killed) == len(victims):
                return
