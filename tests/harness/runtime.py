"""One Kafka and one PostgreSQL per test run. Tests share them, each in databases and topics of its own prefix."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.embedded.jars import prepare as prepare_jars
from infra.embedded.kafka import EmbeddedKafka
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.state import StateFolder
from infra.embedded.supervisor import Supervisor
from infra.kafka.connection import KafkaConnection

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Runtime:
    """Where the shared servers are, and who may do everything on them."""

    administrator_url: str = field(repr=False)
    kafka_admin: KafkaConnection

    def administrator(self, topic_prefix: str) -> KafkaConnection:
        """Who may do everything, on the topics that begin with a prefix."""
        return replace(self.kafka_admin, topic_prefix=topic_prefix)

    def new_prefix(self) -> str:
        """A prefix no other test of this run has: for database and role names, and with a dot for topics."""
        return f"t{os.getpid()}_{next(_numbers)}_"


@asynccontextmanager
async def embedded_runtime(folder: Path) -> AsyncIterator[Runtime]:
    """The servers of `kisum up`, in a folder that is thrown away."""
    state = StateFolder.open(folder)
    supervisor = Supervisor()
    try:
        await asyncio.to_thread(prepare_jars, state)
        postgres, kafka = EmbeddedPostgres(state), EmbeddedKafka(state)
        await asyncio.gather(postgres.prepare(), kafka.prepare())
        await asyncio.gather(supervisor.start(postgres.child()), supervisor.start(kafka.child()))
        yield Runtime(administrator_url=postgres.dsn(), kafka_admin=kafka.administrator)
    finally:
        await supervisor.stop_all()
        state.remove()
