"""What the broker says of the owner's topics, in the registry's names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from contracts.topics import Topic, wire_name
from infra.kafka.clients import Kafka
from infra.outbox.log import LogUnavailableError


@dataclass(frozen=True)
class SeenTopics:
    """Topic ids by topic, end offsets by topic and partition."""

    topic_ids: Mapping[str, str]
    ends: Mapping[tuple[str, int], int]


class TopicWatch:
    """Asks the broker."""

    def __init__(self, kafka: Kafka, topics: Iterable[Topic]) -> None:
        self._topics = {wire_name(kafka.topic_prefix, topic.name): topic for topic in topics}
        self._watch = kafka.watch(client_id="outbox-watch")

    async def look(self) -> SeenTopics:
        """Raises LogUnavailableError."""
        try:
            seen = await self._watch.look({wire: topic.partitions for wire, topic in self._topics.items()})
        except KafkaError as error:
            raise LogUnavailableError(repr(error)) from error
        return SeenTopics(
            topic_ids={self._topics[wire].name: topic_id for wire, topic_id in seen.topic_ids.items()},
            ends={(self._topics[asked.topic].name, asked.partition): end for asked, end in seen.ends.items()},
        )
