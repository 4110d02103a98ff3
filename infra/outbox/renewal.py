"""Publishing whole topics anew: all the database says, and of every other key of the log that there is nothing."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.topics import Topic
from infra.outbox.bulk import CHUNK_ROWS_MAX, in_chunks
from infra.outbox.parts import Parts
from infra.outbox.source import is_astray, publish_again, readable_key
from infra.outbox.survey import Partition, read_through
from infra.outbox.writer import Lane

#: A key and how many there were up to it.
_Reached = tuple[str, int]


@dataclass
class Renewal:
    """One way through the topics. It keeps nothing that a next leader would need: that one begins again.

    :param room: returns when all that was written before has been acknowledged.
    :param tell: told of how far it is: states published again, keys withdrawn.
    """

    parts: Parts
    room: Callable[[], Awaitable[None]]
    tell: Callable[[int, int], Awaitable[None]]
    republished: int = 0
    withdrawn: int = 0

    async def publish(self, topic: Topic) -> set[int]:
        """Publish every key's state again, under the version it has; the hashes of the keys."""
        source, before = self.parts.sources[topic.name], self.republished
        # Of millions of keys, the hashes only. They are keyed with what nobody outside this process knows.
        known: set[int] = set()

        async def write(work: Any, reached: _Reached | None) -> _Reached | None:
            after, count = reached or (None, 0)
            self.republished = before + count
            await self.tell(self.republished, self.withdrawn)
            page = await source.keys(work, after=after, limit=CHUNK_ROWS_MAX)
            await source.republish_all(work, page, now=self.parts.clock(), lane=Lane.BULK)
            known.update(map(hash, page))
            return (page[-1], count + len(page)) if page else None

        await in_chunks(self.parts.database, write, room=self.room)
        return known

    async def withdraw(
        self,
        topic: Topic,
        known: set[int],
        *,
        until: Mapping[Partition, int],
        unreadable: Callable[[Partition, Any], None],
    ) -> None:
        """Publish for every key of the log that is not known the form of its state that gives nothing.

        :param until: up to where the log is read.
        :param unreadable: told of each record whose bytes are no key, or none of its partition.

        Raises LogUnavailableError.
        """
        source = self.parts.sources[topic.name]
        strangers: dict[str, None] = {}

        async def visit(partition: Partition, record: Any) -> None:
            key = readable_key(source, record.key)
            if key is None or is_astray(topic, partition[1], record.key):
                unreadable(partition, record)
            if key is not None and hash(key) not in known:
                strangers[key] = None
                if len(strangers) == CHUNK_ROWS_MAX:
                    await self._withdraw(topic, known, strangers)

        await read_through(self.parts.kafka, (topic,), visit, until=until)
        await self._withdraw(topic, known, strangers)

    async def _withdraw(self, topic: Topic, known: set[int], strangers: dict[str, None]) -> None:
        source = self.parts.sources[topic.name]
        withdrawn = 0

        async def write(work: Any, _: None) -> None:
            nonlocal withdrawn
            withdrawn = 0
            for key in sorted(strangers):
                # It may have come to be since it was looked for.
                revision, is_known = await publish_again(work, source, key, now=self.parts.clock(), lane=Lane.BULK)
                withdrawn += revision is not None and not is_known

        await in_chunks(self.parts.database, write, room=self.room)
        known.update(map(hash, strangers))
        strangers.clear()
        self.withdrawn += withdrawn
        await self.tell(self.republished, self.withdrawn)
