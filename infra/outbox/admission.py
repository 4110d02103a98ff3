"""Whether a leader may publish: only from the database that published before, or one said to be in its place."""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from infra.outbox.log import LogUnavailableError
from infra.outbox.parts import Parts, Status
from infra.outbox.store import Publisher, Server, Store
from infra.outbox.survey import LastHeartbeat, Survey, last_heartbeat, survey

_LOOK_INTERVAL_SECONDS: Final = 1.0

_log: Final = structlog.get_logger("kisum.outbox")


@dataclass(frozen=True)
class Admission:
    """As whom a leader publishes, and what it knows of the log that its database need not know.

    :ivar surveyed: what was found in the logs of a restored database, all of which is then published anew.
    """

    publisher: Publisher
    told: LastHeartbeat
    surveyed: Survey | None = None


async def be_admitted(parts: Parts, status: Status, store: Store) -> Admission:
    """Return when this leader may publish.

    Until then nothing is published, not even heartbeats: readers know that they hear nothing.
    """
    while True:
        publisher = await store.publisher()
        try:
            told = LastHeartbeat()
            if parts.heartbeats is not None:
                told = await last_heartbeat(parts.kafka, parts.heartbeats)
            if publisher.restore is not None or not publisher.epoch_complete:
                return await _begin_epoch(parts, store, publisher, told)
            refusal = publisher.refusal or await _why_refused(store, publisher, told)
        except LogUnavailableError as gone:
            _log.warning("the log is not available", reason=str(gone))
        else:
            if refusal is None:
                return Admission(publisher, told)
            if publisher.refusal is None:
                # For good: what tells of it may be gone in an hour, as heartbeats are.
                await store.refuse(refusal)
            if status.refusal != refusal:
                _log.critical(
                    "the database is not the one that published before; nothing is published until"
                    " `kisum restore finish` was run for this service",
                    reason=refusal,
                )
            status.refusal = refusal
        status.backlog = await store.backlog()
        await asyncio.sleep(_LOOK_INTERVAL_SECONDS)


async def _why_refused(store: Store, publisher: Publisher, told: LastHeartbeat) -> str | None:
    server = await store.server()
    if publisher.server is not None and publisher.server != server:
        return _another_server(publisher.server, server)
    if (told.epoch, told.publish_counter) > (publisher.epoch, publisher.publish_counter):
        return (
            f"its last heartbeat told of epoch {told.epoch} and {told.publish_counter} records published, and the"
            f" database knows of epoch {publisher.epoch} and {publisher.publish_counter}"
        )
    if publisher.server is None:
        await store.adopt_server(server)
    return None


def _another_server(known: Server, found: Server) -> str:
    if known.system_id != found.system_id:
        return f"it lives on another PostgreSQL than it published from: {found}, not {known}"
    return f"PostgreSQL was recovered or promoted since it published: {found}, not {known}"


async def _begin_epoch(parts: Parts, store: Store, publisher: Publisher, told: LastHeartbeat) -> Admission:
    """Raise the epoch above all there have been. One that was begun and not finished is raised again."""
    found = await survey(parts.kafka, parts.topics)
    epoch = max(publisher.epoch, found.epoch, told.epoch) + 1
    await store.begin_epoch(epoch, await store.server())
    _log.warning("a restored database is published under a new epoch", epoch_before=publisher.epoch, epoch=epoch)
    return Admission(await store.publisher(), told, found)
