"""The topic of memberships deleted and created again, while rights are given and taken away."""

import asyncio
import time
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cli.demo.system import Processes
from cli.installation import Installation
from cli.registry import service_names
from contracts.topics import TOPICS
from infra.kafka.bootstrap import bootstrap
from infra.kafka.connection import KafkaConnection
from tests.chaos.company import set_permissions
from tests.chaos.ground import FOLLOWERS, Ground, ground
from tests.chaos.oracle import Answer
from tests.chaos.outcome import Outcome, judge, settle
from tests.harness.waiting import wait_until

_TOPIC: Final = "auth.memberships.v1"
_MEMBERS: Final = 16
_WRITES_BEFORE: Final = 40
_REQUEST_SECONDS: Final = 20.0
_RECOVERY_SECONDS: Final = 90.0


async def topic(folder: Path, seed: int, _minutes: float) -> Outcome:
    """Who is denied something while the topic is not there never has it again, and every cache is filled anew."""
    outcome = Outcome()
    async with ground(folder, seed, members=_MEMBERS) as here:
        denied, *others = here.people.members
        asked_for, *_ = here.company.questions
        async with asyncio.TaskGroup() as tasks:
            here.load.start(tasks, others)
            await here.written(_WRITES_BEFORE)
            admin = _administrator(here)
            await asyncio.to_thread(_delete, admin)
            deleted_at = time.monotonic()
            await here.people.change(denied, set_permissions(here.people.standing(denied), frozenset()))
            denied_at = time.monotonic()
            await asyncio.to_thread(_create, here, admin)
            outcome.tell(f"topic       {_TOPIC} was away for {time.monotonic() - deleted_at:.1f} s")
            await wait_until(
                lambda: here.load.ask(denied, asked_for),
                lambda asked: asked.answer is Answer.REFUSED,
                describe="who was denied while the topic was away is refused",
                timeout_seconds=_RECOVERY_SECONDS,
            )
            refused_at = time.monotonic()
            outcome.tell(f"denied      {refused_at - denied_at:.1f} s after Auth's answer the first refusal")
            await here.written(_WRITES_BEFORE)
            await settle(here, outcome, *FOLLOWERS)
        again = [
            asked
            for asked in here.oracle.asked
            if asked.subject == str(denied.id) and asked.started > refused_at and asked.answer is Answer.ALLOWED
        ]
        outcome.require("let in by the old state after it was refused", again)
        judge(here, outcome)
    return outcome


def _administrator(here: Ground[Processes]) -> KafkaConnection:
    return Installation(here.system.state).kafka.administrator


def _delete(administrator: KafkaConnection) -> None:
    """Delete the topic; returns when no broker knows it any more."""
    client = AdminClient(administrator.confluent())
    client.delete_topics([_TOPIC], operation_timeout=_REQUEST_SECONDS)[_TOPIC].result(_REQUEST_SECONDS)
    end = time.monotonic() + _REQUEST_SECONDS
    while _TOPIC in client.list_topics(timeout=_REQUEST_SECONDS).topics:
        if time.monotonic() > end:
            raise KafkaException("the topic is still there")


def _create(here: Ground[Processes], administrator: KafkaConnection) -> None:
    principals = {name: here.system.state.secret(f"kafka-{name}") for name in service_names()}
    created = bootstrap(administrator, TOPICS, principals).topics_created
    if created != (_TOPIC,):
        raise AssertionError(f"the bootstrap created {created}")
