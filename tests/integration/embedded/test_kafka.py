import asyncio
import os
import signal
import socket
import time

import psutil
import pytest
import pytest_asyncio
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.embedded.kafka import EmbeddedKafka
from infra.embedded.state import StateFolder
from infra.embedded.supervisor import Supervisor
from tests.harness.waiting import wait_until


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kafka(state: StateFolder, supervisor: Supervisor) -> EmbeddedKafka:
    kafka = EmbeddedKafka(state)
    await kafka.prepare()
    await supervisor.start(kafka.child())
    return kafka


def kept(kafka: EmbeddedKafka) -> list[bytes | None]:
    consumer = Consumer({**kafka.administrator.confluent(), "group.id": "kept", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition("kept", 0, 0)])
        messages = consumer.consume(1, timeout=5.0)
        return [None if message.error() else message.value() for message in messages]
    finally:
        consumer.close()


@pytest.mark.usefixtures("kafka")
async def test_everything_written_by_it_is_private(state: StateFolder) -> None:
    assert (state.path / "kafka" / "server.properties").stat().st_mode & 0o777 == 0o600
    assert (state.path / "kafka" / "data").stat().st_mode & 0o777 == 0o700
    assert not (state.path / "kafka" / ".partial").exists()


async def test_the_password_is_in_no_process_list(kafka: EmbeddedKafka, supervisor: Supervisor) -> None:
    process = psutil.Process(supervisor.pids()["kafka"])
    assert kafka.admin_password not in " ".join(process.cmdline()) + str(process.environ())


@pytest.mark.usefixtures("kafka")
async def test_it_listens_on_loopback_only(supervisor: Supervisor) -> None:
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.Process(supervisor.pids()["kafka"]).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 2
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.parametrize(
    "credentials",
    [
        {"security.protocol": "PLAINTEXT"},
        {"sasl.password": "wrong"},
        {"sasl.username": "nobody"},
        {"sasl.mechanism": "PLAIN"},
    ],
)
async def test_who_has_not_the_password_is_refused(kafka: EmbeddedKafka, credentials: dict[str, str]) -> None:
    settings = {**kafka.administrator.confluent(), **credentials, "log_level": 0}
    if credentials.get("security.protocol") == "PLAINTEXT":
        settings = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0, **credentials}
    with pytest.raises(KafkaException):
        await asyncio.to_thread(AdminClient(settings).list_topics, timeout=1.5)


async def test_killed_it_comes_back_with_its_data_within_seconds(kafka: EmbeddedKafka, supervisor: Supervisor) -> None:
    admin = AdminClient(kafka.administrator.confluent())
    await asyncio.to_thread(admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result, 10)
    producer = Producer({**kafka.administrator.confluent(), "acks": "all"})
    producer.produce("kept", b"content")
    assert await asyncio.to_thread(producer.flush, 10.0) == 0
    killed = supervisor.pids()["kafka"]
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)

    async def content() -> list[bytes | None]:
        return await asyncio.to_thread(kept, kafka) if supervisor.pids()["kafka"] != killed else []

    await wait_until(content, lambda got: got == [b"content"], describe="data after kill -9", timeout_seconds=30)
    assert time.monotonic() - began < 20  # 13 s of it would be the old session at Kafka's defaults


async def test_stopped_in_order_it_keeps_its_data_and_leaves_a_taken_port(
    kafka: EmbeddedKafka, supervisor: Supervisor, state: StateFolder
) -> None:
    port = kafka.port
    began = time.monotonic()
    await supervisor.stop_all()
    assert time.monotonic() - began < 10
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((kafka.host, port))
        other.listen()
        again = EmbeddedKafka(StateFolder.open(state.path))
        await again.prepare()
        await supervisor.start(again.child())
    assert again.port != port
    assert await asyncio.to_thread(kept, again) == [b"content"]
