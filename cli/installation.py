"""One installation on this machine: its state folder, its PostgreSQL and Kafka, and what its services are given."""

import asyncio
import base64
import os
import signal
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from chassis.migrations import migrate
from chassis.service import Service
from chassis.settings import AccessSettings, FileSettings, ServiceSettings
from cli import progress
from cli.registry import load, service_names
from cli.running import Part
from contracts.topics import TOPICS
from infra.embedded.child import stop_orphan
from infra.embedded.errors import CannotStart
from infra.embedded.jars import missing_bytes
from infra.embedded.jars import prepare as prepare_jars
from infra.embedded.kafka import EmbeddedKafka
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.state import StateFolder, is_free
from infra.kafka.bootstrap import bootstrap
from infra.kafka.connection import KafkaConnection
from infra.postgres.provision import ServiceDatabase, provision

_TOKEN_AUDIENCE: Final = "kisum"  # noqa: S105  the audience of tokens is no secret


def home() -> Path:
    """$KISUM_HOME, or `.kisum` in this checkout."""
    given = os.environ.get("KISUM_HOME")
    return Path(given).expanduser().absolute() if given else Path(__file__).parents[1] / ".kisum"


def _own_secrets(service: Service[Any]) -> list[str]:
    """The secrets only this service has: each is made on first use and kept, as every secret of an installation."""
    fields = service.settings.model_fields
    return [
        name
        for name, field in fields.items()
        if field.annotation is SecretStr and name not in ServiceSettings.model_fields
    ]


class Installation:
    """Addresses and secrets of everything that belongs to one state folder."""

    def __init__(self, state: StateFolder) -> None:
        self.state = state
        self.postgres = EmbeddedPostgres(state)
        self.kafka = EmbeddedKafka(state)

    def database(self, service: str) -> ServiceDatabase:
        return ServiceDatabase(
            name=service,
            password=self.state.secret(f"postgres-{service}"),
            owner_password=self.state.secret(f"postgres-{service}-owner"),
        )

    def database_url(self, service: str) -> str:
        return self.database(service).url(self.postgres.dsn())

    def environment(self, service: Service[Any], address: str) -> dict[str, str]:
        """What `kisum serve SERVICE` reads, served at `address`; secrets travel in the environment only.

        What the caller's own environment says of the service stands: an operator may set what is not said here.
        """
        name = service.name
        settings = {
            "DATABASE_URL": self.database_url(name),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_USERNAME": name,
            "KAFKA_PASSWORD": self.state.secret(f"kafka-{name}"),
            "TOKEN_ISSUER": f"kisum-{self.state.identity}",
            "TOKEN_AUDIENCE": _TOKEN_AUDIENCE,
        }
        if issubclass(service.settings, AccessSettings):
            settings["ROOT_PUBLIC_KEY"] = self._root_public_key()
            settings["ACCESS_FOLDER"] = str(self.state.folder("access") / name)
        if issubclass(service.settings, FileSettings):
            settings["FILES_URL"] = (self.state.folder("files") / name).as_uri()
        settings |= {
            field.upper(): self.state.secret(f"{name}-{field}".replace("_", "-")) for field in _own_secrets(service)
        }
        if "public_url" in service.settings.model_fields:
            settings["PUBLIC_URL"] = address
        prefix = service.settings.model_config["env_prefix"]
        derived = {f"{prefix}{key}": value for key, value in settings.items()}
        return derived | {name: value for name, value in os.environ.items() if name.startswith(prefix)}

    def _root_public_key(self) -> str:
        seed = base64.urlsafe_b64decode(self.state.secret("auth-root-private-key") + "=")
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        return base64.urlsafe_b64encode(public).rstrip(b"=").decode()

    async def parts(self, *, processes: bool, port: int | None) -> tuple[Part, ...]:
        """The processes services run in, and where. Raises CannotStart where an address is taken by somebody else."""
        groups = {name: service.manifest.route_group for name, service in load(service_names()).items()}
        if processes:
            served = [(name, self.state.port(f"http-{name}"), {name: group}) for name, group in groups.items()]
        else:
            if port is not None:
                self.state.record_port("http", port)
            served = [("all", self.state.port("http"), groups)]
        parts = []
        for name, http_port, route_groups in served:
            # What an earlier run left behind is ours to stop; whatever else holds the port is not.
            await stop_orphan(self.state.pid_path(f"service-{name}"), signal.SIGTERM)
            if not is_free(http_port):
                raise CannotStart(
                    f"port {http_port} of 127.0.0.1 is taken by another program:"
                    " stop it, or choose another port with `kisum up --port N`"
                )
            parts.append(Part(name, http_port, self.state.free_port(f"metrics-{name}"), route_groups))
        return tuple(parts)

    async def fetch_jars(self) -> None:
        """Download Kafka's jars where they are missing."""
        missing = missing_bytes()
        if missing:
            with progress.download("Apache Kafka", missing) as tell:
                await asyncio.to_thread(prepare_jars, self.state, tell)

    async def prepare(self) -> None:
        """Bring running servers to what the services need: databases, migrations, seeds, topics, users, rights."""
        names = service_names()
        administrator = KafkaConnection(
            bootstrap_servers=self.kafka.bootstrap_servers,
            username=self.kafka.admin_username,
            password=self.kafka.admin_password,
        )
        principals = {name: self.state.secret(f"kafka-{name}") for name in names}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(bootstrap, administrator, TOPICS, principals))
            tasks.create_task(self._prepare_databases(names))

    async def _prepare_databases(self, names: list[str]) -> None:
        databases = {name: self.database(name) for name in names}
        await provision(self.postgres.dsn(), databases)
        for name, service in load(names).items():
            await migrate(service, databases[name].owner_url(self.postgres.dsn()))
