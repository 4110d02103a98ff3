"""Brings what is in the outbox to Kafka: one leader per database, in order per key, and nothing is lost or left old.

Every instance of a service runs a relay; the one whose connection holds the database's lock leads, the others wait for
it. What was acknowledged is deleted if it is still what was sent. On any error nothing is deleted: the producer is
given up, the rows are read and sent again, and readers ignore what they have seen.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, NoReturn

import structlog

from contracts.topics import Topic
from infra.clock import Clock, utc_now
from infra.kafka.clients import Kafka
from infra.outbox.admission import be_admitted
from infra.outbox.heartbeat import is_heartbeat
from infra.outbox.leader import Leader, RestoreAskedError, together
from infra.outbox.parts import Parts, Status
from infra.outbox.source import StateSource
from infra.outbox.store import OpenStore, Store, StoreLostError
from infra.postgres.database import UnitsOfWork
from infra.tasks import end_tasks

_LOCK_INTERVAL_SECONDS: Final = 0.25
_PROOF_INTERVAL_SECONDS: Final = 1.0
_RESTART_INTERVAL_SECONDS: Final = 1.0

_log: Final = structlog.get_logger("kisum.outbox")


class IncompleteRelayError(Exception):
    """The service owns a state topic and does not say how its states are published again."""


class Relay(Status):
    """The relay of one service. What it tells of itself is in `Status`.

    :param open_store: opens the relay's one connection of its own to the database.
    :param database: where the sources get their units of work from.
    :param topics: all topics the service owns.
    :param sources: for each state topic, by its name, the rows behind it.
    """

    def __init__(
        self,
        *,
        open_store: OpenStore,
        database: UnitsOfWork,
        kafka: Kafka,
        topics: Iterable[Topic],
        sources: Mapping[str, StateSource],
        clock: Clock = utc_now,
    ) -> None:
        super().__init__()
        owned = tuple(topics)
        # Dead letters and what every instance writes go past the outbox.
        written = tuple(
            topic for topic in owned if not (is_heartbeat(topic) or topic.dead_letters or topic.other_writers)
        )
        self._parts = Parts(
            open_store=open_store,
            database=database,
            kafka=kafka,
            states=tuple(topic for topic in written if topic.cleanup == "compact"),
            facts=tuple(topic for topic in written if topic.cleanup == "delete"),
            heartbeats=next((topic for topic in owned if is_heartbeat(topic)), None),
            sources=sources,
            clock=clock,
        )
        absent = [topic.name for topic in self._parts.states if topic.name not in sources]
        if absent:
            raise IncompleteRelayError(f"no way to publish again: {', '.join(absent)}")
        self._task: asyncio.Task[None] | None = None

    @property
    def oldest_pending_age(self) -> timedelta:
        """How long the oldest row has been pending; zero if none is."""
        oldest_at = self.backlog.oldest_at
        return timedelta(0) if oldest_at is None else max(timedelta(0), self._parts.clock() - oldest_at)

    async def run(self) -> None:
        """Lead whenever this relay can, until cancelled or closed."""
        self._task = asyncio.current_task()
        while True:
            try:
                await self._serve()
            except StoreLostError as lost:
                _log.warning("the relay's connection to the database is gone", reason=str(lost))
            except Exception:  # noqa: BLE001 - logged, and tried again
                # A relay that ended for ever would be worse than one that says each second what is wrong with it.
                _log.exception("the relay failed and starts again")
            await asyncio.sleep(_RESTART_INTERVAL_SECONDS)

    async def close(self) -> None:
        """End `run` and wait for it. What is being sent is left pending, and sent again by the next leader."""
        if self._task is not None:
            await end_tasks(self._task)

    async def _serve(self) -> None:
        store = await self._parts.open_store()
        try:
            while not await store.try_lead():  # noqa: ASYNC110 - PostgreSQL tells nobody that a lock is free
                await asyncio.sleep(_LOCK_INTERVAL_SECONDS)
            self.leads = True
            _log.info("the relay leads")
            await together(_keep_proving(store), self._lead(store))
        finally:
            self._forget_what_a_leader_knows()
            store.terminate()

    async def _lead(self, store: Store) -> NoReturn:
        while True:
            admission = await be_admitted(self._parts, self, store)
            self.refusal = None
            leader = Leader(self._parts, self, store, admission)
            try:
                await together(leader.publish(), leader.heal(), leader.renew())
            except RestoreAskedError:
                _log.warning("an operator says that this database is the truth from now on")

    def _forget_what_a_leader_knows(self) -> None:
        self.leads = self.restoring = False
        self.as_of = self.refusal = self.doubt = None


async def _keep_proving(store: Store) -> NoReturn:
    while True:
        await asyncio.sleep(_PROOF_INTERVAL_SECONDS)
        await store.prove()
