"""An idempotent producer, and how one is given up."""

import asyncio
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from infra.kafka.connection import KafkaConnection

REQUEST_TIMEOUT_SECONDS: Final = 8.0
_CLOSE_TIMEOUT_SECONDS: Final = 1.0
_RETRY_INTERVAL_MILLISECONDS: Final = 50
_METADATA_AGE_MAX_MILLISECONDS: Final = 60_000


def new_producer(kafka: KafkaConnection, *, client_id: str, **other: Any) -> AIOKafkaProducer:
    """A producer, not started. It retries for ever: bound each send by REQUEST_TIMEOUT_SECONDS, then give it up."""
    return AIOKafkaProducer(
        **kafka.aiokafka(),
        client_id=client_id,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        request_timeout_ms=int(REQUEST_TIMEOUT_SECONDS * 1000),
        retry_backoff_ms=_RETRY_INTERVAL_MILLISECONDS,
        metadata_max_age_ms=_METADATA_AGE_MAX_MILLISECONDS,
        **other,
    )


async def give_up(producer: AIOKafkaProducer) -> None:
    """End a producer. What was not answered within a second may or may not come to be in the log."""
    # An idempotent producer sends again for ever: left alone, it would bring an old record back when Kafka returns.
    # aiokafka's own stop waits for that, so there is no public way to give up.
    sending = producer._sender.sender_task  # noqa: SLF001
    if sending is not None and not sending.done():
        sending.cancel()
        await asyncio.wait([sending], timeout=_CLOSE_TIMEOUT_SECONDS)
    await producer.client.close()
    while sending is not None and not sending.done():
        # Each cancellation ends one request that waits for an answer or for metadata.
        sending.cancel()
        await asyncio.wait([sending], timeout=_CLOSE_TIMEOUT_SECONDS)
    producer._closed = True  # noqa: SLF001
