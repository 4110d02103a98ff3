"""Every service with an access cache tells of it, with its own principal and rights, as it is served."""

import base64
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from access.acknowledgements import TOPIC
from chassis.service import Service
from contracts.envelope import decode
from contracts.events.access import RecordsApplied
from contracts.topics import wire_name
from services.access_resolver.app import service as access_resolver
from services.finance.app import service as finance
from tests.harness.access import ROOT_KEY
from tests.harness.modules import file_settings
from tests.harness.runtime import Runtime
from tests.harness.services import running_service
from tests.harness.waiting import wait_until


@pytest.mark.parametrize("service", [finance, access_resolver], ids=lambda service: service.name)
async def test_a_service_acknowledges_while_it_runs_and_signs_off_when_it_stops(
    runtime: Runtime, tmp_path: Path, service: Service[Any]
) -> None:
    settings = {
        "root_public_key": base64.urlsafe_b64encode(ROOT_KEY.public_key().public_bytes_raw()).decode(),
        "access_folder": tmp_path / "access",
        **file_settings(service, tmp_path),
    }
    words: list[RecordsApplied] = []
    async with running_service(runtime, service, settings) as running:
        consumer = AIOKafkaConsumer(**runtime.kafka_admin.aiokafka(), group_id=None, auto_offset_reset="earliest")
        await consumer.start()
        consumer.assign([TopicPartition(wire_name(running.kafka.topic_prefix, TOPIC.name), 0)])

        async def hear() -> list[str]:
            for batch in (await consumer.getmany(timeout_ms=100)).values():
                words.extend(decode(record.value, (RecordsApplied,)).data for record in batch)
            return [str(each.status) for each in words]

        try:
            await wait_until(hear, lambda heard: len(heard) >= 2, describe="it acknowledges")
        except BaseException:
            await consumer.stop()
            raise
    try:
        heard = await wait_until(hear, lambda heard: heard[-1] == "stopped", describe="it signs off")
    finally:
        await consumer.stop()
    assert {each.service for each in words} == {service.name}
    assert len({each.instance for each in words}) == 1
    # Nobody has told it anything yet.
    assert set(heard[:-1]) == {"not_ready"}
