"""What the broker says of the owner's topics: their ends, and their ids, which a topic made again has not kept."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # not marked as exported

from contracts.topics import Topic, wire_name
from infra.kafka.connection import KafkaConnection
from infra.outbox.log import LogUnavailableError

_REQUEST_TIMEOUT_SECONDS: Final = 3.0
_KAFKA_ALPHABET: Final = str.maketrans("+/", "-_")

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """Topic ids by topic, end offsets by topic and partition."""

    topic_ids: Mapping[str, str]
    ends: Mapping[tuple[str, int], int]


class LogWatch:
    """Asks the broker. aiokafka knows no topic ids, so this is confluent-kafka's client."""

    def __init__(self, kafka: KafkaConnection, topics: Iterable[Topic]) -> None:
        self._topics = {wire_name(kafka.topic_prefix, topic.name): topic for topic in topics}
        self._admin = AdminClient({**kafka.confluent(), "client.id": "outbox-watch"}, logger=_log)

    async def look(self) -> Seen:
        """Raises LogUnavailableError."""
        try:
            return await asyncio.to_thread(self._look)
        except KafkaException as error:
            raise LogUnavailableError(repr(error)) from error

    def _look(self) -> Seen:
        described = self._admin.describe_topics(
            TopicCollection(list(self._topics)), request_timeout=_REQUEST_TIMEOUT_SECONDS
        )
        ends = self._admin.list_offsets(
            {
                TopicPartition(name, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
                for name, topic in self._topics.items()
                for number in range(topic.partitions)
            },
            request_timeout=_REQUEST_TIMEOUT_SECONDS,
        )
        return Seen(
            topic_ids={
                # librdkafka writes them in the other alphabet of base64 than Kafka.
                self._topics[name].name: str(answer.result().topic_id).translate(_KAFKA_ALPHABET)
                for name, answer in described.items()
            },
            ends={
                (self._topics[asked.topic].name, asked.partition): answer.result().offset
                for asked, answer in ends.items()
            },
        )
