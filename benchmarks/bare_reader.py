"""A reader of one partition that does nothing but tell when each record arrived. Its requests wait at the broker as the
access feed's do.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from access.replay import POLL_MILLISECONDS
from benchmarks.programs import given, tell
from infra.kafka.connection import KafkaConnection

#: The reference membership's (design §9).
RECORD_BYTES: Final = 1200


async def _main(its_own: Mapping[str, Any]) -> None:
    consumer = AIOKafkaConsumer(
        **KafkaConnection(**its_own["kafka"]).aiokafka(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=POLL_MILLISECONDS,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(its_own["topic"], 0)])
        tell("ready")
        while True:
            await consumer.getone()
            tell(time.time_ns())
    finally:
        await consumer.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(given()))
