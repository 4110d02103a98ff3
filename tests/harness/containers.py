"""The servers of docker-compose.yml for a test run: the same images, the same start, each at a port of its own."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.core.container import DockerContainer
from testcontainers.postgres import PostgresContainer

from infra.kafka.connection import KafkaConnection
from tests.harness.runtime import Runtime
from tests.harness.waiting import wait_until

_ROOT: Final = Path(__file__).parents[2]
_COMPOSE: Final[dict[str, Any]] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["services"]
_CLIENT_PORT: Final = 9092
_ADMIN: Final = "admin"
_START_SECONDS: Final = 120.0
#: Where the start waits for the address it is to tell its clients, which is known only once the container runs.
_ADDRESS: Final = "/tmp/address"  # noqa: S108  in the container


@asynccontextmanager
async def container_runtime() -> AsyncIterator[Runtime]:
    """PostgreSQL and Kafka in containers that are thrown away."""
    with ExitStack() as stack:
        postgres, kafka = await asyncio.gather(asyncio.to_thread(_postgres), asyncio.to_thread(_kafka))
        stack.callback(postgres.stop)
        stack.callback(kafka.container.stop)
        connection = kafka.connection
        await wait_until(
            lambda: asyncio.to_thread(_answers, connection),
            lambda answers: answers,
            describe="Kafka answers its administrator",
            timeout_seconds=_START_SECONDS,
        )
        yield Runtime(administrator_url=postgres.get_connection_url(driver=None), kafka_admin=connection)


@dataclass(frozen=True)
class _Kafka:
    container: DockerContainer
    connection: KafkaConnection


def _postgres() -> PostgresContainer:
    entry = _COMPOSE["postgres"]
    container = PostgresContainer(
        entry["image"], username="kisum", password=secrets.token_urlsafe(16), dbname="postgres"
    )
    container.with_env("POSTGRES_INITDB_ARGS", entry["environment"]["POSTGRES_INITDB_ARGS"])
    container.with_command(entry["command"])
    container.start()
    return container


def _kafka() -> _Kafka:
    entry = _COMPOSE["kafka-1"]
    password = secrets.token_urlsafe(16)
    login = f'required username="{_ADMIN}" password="{password}"'
    modules = "org.apache.kafka.common.security"
    of_one = {name: str(value) for name, value in entry["environment"].items() if "${" not in str(value)}
    given = {
        **of_one,
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        # A broker of a test lives for minutes: no second compiler, no parallel collector.
        "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "CLUSTER_ID": base64.urlsafe_b64encode(b"\x00" + secrets.token_bytes(15)).decode().rstrip("="),
        "ADMIN_USERNAME": _ADMIN,
        "ADMIN_PASSWORD": password,
        "KAFKA_LISTENER_NAME_CLIENT_SCRAM___SHA___512_SASL_JAAS_CONFIG": f"{modules}.scram.ScramLoginModule {login};",
        "KAFKA_LISTENER_NAME_CONTROLLER_PLAIN_SASL_JAAS_CONFIG": (
            f'{modules}.plain.PlainLoginModule {login} user_{_ADMIN}="{password}";'
        ),
    }
    container = DockerContainer(entry["image"]).with_exposed_ports(_CLIENT_PORT).with_envs(**given)
    container.with_volume_mapping(str(_ROOT / "infra/deploy/kafka"), "/deploy", "ro")
    wait = f"until [ -s {_ADDRESS} ]; do sleep 0.05; done"
    tell = f'export KAFKA_ADVERTISED_LISTENERS="CLIENT://$(cat {_ADDRESS})"'
    container.with_command(["bash", "-c", f"{wait}; {tell}; exec bash /deploy/start.sh"])
    container.start()
    address = f"{container.get_container_host_ip()}:{container.get_exposed_port(_CLIENT_PORT)}"
    container.copy_into_container(address.encode(), _ADDRESS)
    return _Kafka(container, KafkaConnection(bootstrap_servers=address, username=_ADMIN, password=password))


def _answers(connection: KafkaConnection) -> bool:
    # log_level 0: while the broker starts, a failure is the expected answer.
    admin = AdminClient({**connection.confluent(), "log_level": 0, "reconnect.backoff.max.ms": 200})
    try:
        return bool(admin.list_topics(timeout=2.0).brokers)
    except KafkaException:
        return False
