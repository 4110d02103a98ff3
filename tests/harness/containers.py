"""The servers of docker-compose.yml for a test run: the same images, the same start, each at a port of its own."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer

from cli.deploy import KAFKA_ADMIN, cluster_id_of, kafka_environment
from infra.embedded.kafka import answers
from infra.kafka.connection import KafkaConnection
from tests.harness.runtime import Runtime
from tests.harness.waiting import wait_until

_ROOT: Final = Path(__file__).parents[2]
_COMPOSE: Final[dict[str, Any]] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["services"]
_CLIENT_PORT: Final = 9092
_START_SECONDS: Final = 120.0
#: To remove what a whole run has written takes longer than a minute on a slow disk.
_DOCKER: Final = {"timeout": 600}
#: Where the start waits for the address it is to tell its clients, which is known only once the container runs.
_ADDRESS: Final = "/tmp/address"  # noqa: S108  in the container


@asynccontextmanager
async def container_runtime() -> AsyncIterator[Runtime]:
    """PostgreSQL and Kafka in containers that are thrown away."""
    with ExitStack() as stack:
        # Not at once: both would start the container that clears up after them. Kafka is not waited for yet.
        kafka = await asyncio.to_thread(_kafka)
        stack.callback(kafka.container.stop)
        postgres = await asyncio.to_thread(_postgres)
        stack.callback(postgres.stop)
        connection = kafka.connection
        await wait_until(
            lambda: asyncio.to_thread(answers, connection),
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
        entry["image"],
        username="kisum",
        password=secrets.token_urlsafe(16),
        dbname="postgres",
        docker_client_kw=_DOCKER,
    )
    container.with_env("POSTGRES_INITDB_ARGS", entry["environment"]["POSTGRES_INITDB_ARGS"])
    container.with_command(entry["command"])
    container.start()
    return container


def _kafka() -> _Kafka:
    entry = _COMPOSE["kafka-1"]
    password = secrets.token_urlsafe(16)
    of_one = {name: str(value) for name, value in entry["environment"].items() if "${" not in str(value)}
    given = {
        **of_one,
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        # A broker of a test lives for minutes: no second compiler, no parallel collector.
        "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        **kafka_environment(cluster_id_of(secrets.token_hex(8)), password),
    }
    container = (
        DockerContainer(entry["image"], docker_client_kw=_DOCKER).with_exposed_ports(_CLIENT_PORT).with_envs(**given)
    )
    container.with_volume_mapping(str(_ROOT / "infra/deploy/kafka"), "/deploy", "ro")
    wait = f"until [ -s {_ADDRESS} ]; do sleep 0.05; done"
    tell = f'export KAFKA_ADVERTISED_LISTENERS="CLIENT://$(cat {_ADDRESS})"'
    container.with_command(["bash", "-c", f"{wait}; {tell}; exec bash /deploy/start.sh"])
    container.start()
    address = f"{container.get_container_host_ip()}:{container.get_exposed_port(_CLIENT_PORT)}"
    container.copy_into_container(address.encode(), _ADDRESS)
    return _Kafka(container, KafkaConnection(bootstrap_servers=address, username=KAFKA_ADMIN, password=password))
