"""Whether a service's topics can be reached and are what the registry says, asked with the service's own principal."""

import asyncio
from collections.abc import Sequence
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from contracts.errors import DomainError, Kind
from contracts.topics import Topic
from infra.kafka.connection import KafkaConnection
from infra.kafka.starting import start_whole

_REQUEST_TIMEOUT_MILLISECONDS: Final = 1500


class KafkaUnavailableError(DomainError):
    kind = Kind.UNAVAILABLE
    code = "kafka_unavailable"
    title = "Kafka cannot be reached"


class TopicsDifferError(DomainError):
    """A topic is missing, may not be seen, or has other partitions than the registry: keys would go astray."""

    kind = Kind.UNAVAILABLE
    code = "topics_differ"
    title = "Kafka's topics are not those of the registry"


class KafkaProbe:
    """Keeps one idle connection; it is opened by the first check and again after the broker was away."""

    def __init__(self, connection: KafkaConnection, topics: Sequence[Topic]) -> None:
        self._connection = connection
        self._partitions = {connection.topic_prefix + topic.name: topic.partitions for topic in topics}
        self._client: AIOKafkaClient | None = None
        self._one_at_a_time = asyncio.Lock()

    async def check(self) -> None:
        """Raises KafkaUnavailableError or TopicsDifferError."""
        async with self._one_at_a_time:
            client = await self._connected()
            if not await client.force_metadata_update():
                raise KafkaUnavailableError
            self._compare(client)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _connected(self) -> AIOKafkaClient:
        if self._client is None:
            client = AIOKafkaClient(
                **self._connection.aiokafka(), request_timeout_ms=_REQUEST_TIMEOUT_MILLISECONDS, client_id="probe"
            )
            try:
                await start_whole(client.bootstrap())
            except KafkaError as error:
                await client.close()
                raise KafkaUnavailableError from error
            await client.set_topics(self._partitions)
            self._client = client
        return self._client

    def _compare(self, client: AIOKafkaClient) -> None:
        found = {name: len(client.cluster.partitions_for_topic(name) or ()) for name in self._partitions}
        differing = [
            f"{name} has {found[name]} partitions, not {expected}"
            for name, expected in self._partitions.items()
            if found[name] != expected
        ]
        if differing:
            raise TopicsDifferError("; ".join(differing))
