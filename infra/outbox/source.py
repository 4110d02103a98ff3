"""What a relay asks of the service whose states it publishes, for each of its state topics."""

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Protocol

from contracts.topics import Topic
from infra.kafka.partitioner import partition_of
from infra.outbox.writer import Lane, Revision


class StateSource(Protocol):
    """The rows behind one state topic; a module of operations is one. All is part of the caller's transaction."""

    def is_key(self, key: str) -> bool:
        """Whether readers take the text for the key of a subject; a record under any other blocks its partition."""

    async def keys(self, work: Any, *, after: str | None, limit: int) -> Sequence[str]:
        """Every key there is a state of, in an order that does not change, from behind `after` on."""

    async def republish(
        self, work: Any, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        """Publish the current state of a key again, with the aggregate's row locked; None where there is no such key.

        Under the version it has, or, given `above`, under `next_version`, which is written to the row.
        """

    async def republish_all(self, work: Any, keys: Sequence[str], *, now: datetime, lane: Lane) -> None:
        """`republish` each of a page of keys, under the versions they have; of many rows, not with queries for each.

        Their rows are locked in this order, which is that of `keys`.
        """

    async def withdraw(
        self, work: Any, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        """Publish for a key the database does not know the form of its state that gives nothing, under `next_version`
        of nothing; None where not even that can be said of it.

        Where a row of this key may be written later, one is written now, in that form: what comes later goes on from
        its version.
        """


def one_by_one(republish: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """The `republish_all` of a source that has few rows."""

    async def republish_all(work: Any, keys: Sequence[str], *, now: datetime, lane: Lane) -> None:
        for key in keys:
            await republish(work, key, now=now, lane=lane)

    return republish_all


async def publish_again(
    work: Any, source: StateSource, key: str, *, now: datetime, above: int | None = None, lane: Lane
) -> tuple[Revision | None, bool]:
    """Publish what the database says of a key, be it nothing; what was published, and whether the key is known."""
    revision = await source.republish(work, key, now=now, above=above, lane=lane)
    if revision is not None:
        return revision, True
    return await source.withdraw(work, key, now=now, above=above, lane=lane), False


def readable_key(source: StateSource, raw_key: bytes | None) -> str | None:
    """The key these bytes are, or None where they are none."""
    try:
        key = (raw_key or b"").decode("ascii")
    except UnicodeDecodeError:
        return None
    return key if source.is_key(key) else None


def is_astray(topic: Topic, partition: int, raw_key: bytes | None) -> bool:
    """Whether these bytes belong into another partition. Readers who cannot read such a record block the one it is in,
    as for bytes that are no key.
    """
    return partition_of(raw_key or b"", topic.partitions) != partition
