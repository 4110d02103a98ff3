"""One process of a service with several: follows the log if it is its turn, and looks at every state it can see.

It is given a JSON object: folder, kafka {bootstrap_servers, username, password, topic_prefix}, and the membership
(company, user) of which version n is the record at offset n - 1 of its partition. It prints one JSON line whenever
something changes and every so often, the last one when standard input ends.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from access.cache import Cache, Partition
from access.ingest import MEMBERSHIPS, partition_of
from access.path import AccessPath
from access.records import is_quarantined, membership_key, version_of
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from infra.tasks import end_tasks
from infra.telemetry.logging import configure_logging
from tests.harness.access import ROOT_KEY

_TOLD_EACH = 20


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201


def look(cache: Cache, key: bytes, partition: Partition) -> tuple[int, int]:
    """The version of the membership and the position of its partition, as one transaction has them."""
    with cache._environment.begin() as transaction:
        head = cache._head_in(transaction)
        database = cache._generations[head.active]
        record = transaction.get(key, db=database)
        position = transaction.get(b"o" + partition[0].encode() + b"\0" + partition[1].to_bytes(2, "big"), db=database)
    if record is not None and is_quarantined(record):
        raise AssertionError("nothing that was published is unreadable")
    return 0 if record is None else version_of(record)[1], 0 if position is None else int.from_bytes(position, "little")


async def main() -> None:
    configure_logging()
    given = json.loads(sys.argv[1])
    company, user = UUID(given["company"]), UUID(given["user"])
    path = AccessPath.open(
        Path(given["folder"]),
        service="finance",
        modules=("finance",),
        kafka=KafkaClients(KafkaConnection(**given["kafka"])),
        root_key=ROOT_KEY.public_key(),
    )
    key, partition = membership_key(company, user), partition_of(MEMBERSHIPS, f"{company}/{user}".encode())
    following = asyncio.create_task(path.run())
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    found = {"looks": 0, "torn": 0, "went_back": 0, "unknown": 0, "seen": 0}
    state = (False, False)
    try:
        is_over = False
        while not is_over:
            # Asked before the look: the last one is made after this process was told to end.
            is_over = over.done()
            version, position = look(path.cache, key, partition)
            was_ready, _ = before = state
            ready, _ = state = path.ready.is_ready, path.cache.is_writer
            found["looks"] += 1
            found["torn"] += version != position
            found["went_back"] += version < found["seen"]
            found["unknown"] += was_ready and not ready
            found["seen"] = max(found["seen"], version)
            if state != before or found["looks"] % _TOLD_EACH == 0:
                tell(ready=ready, writer=path.cache.is_writer, **found)
            await asyncio.wait({over}, timeout=0.001)
    finally:
        await end_tasks(following)
        path.close()
    tell(**found)


asyncio.run(main())
