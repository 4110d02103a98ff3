"""One installation on this machine: its state folder, its PostgreSQL and Kafka, and what its services are given."""

import asyncio
import os
import signal
from typing import Any

from chassis.migrations import migrate
from chassis.service import Service
from cli import progress
from cli.environment import Places, environment_of
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
from infra.postgres.provision import ServiceDatabase, provision


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
        places = Places(
            database_url=self.database_url(service.name),
            kafka_bootstrap_servers=self.kafka.bootstrap_servers,
            access_folder=self.state.folder("access") / service.name,
            files_folder=self.state.folder("files") / service.name,
            public_url=address,
        )
        derived = environment_of(service, places, token_issuer=f"kisum-{self.state.identity}", secret=self.state.secret)
        prefix = service.settings.model_config["env_prefix"]
        return derived | {name: value for name, value in os.environ.items() if name.startswith(prefix)}

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
        principals = {name: self.state.secret(f"kafka-{name}") for name in names}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(bootstrap, self.kafka.administrator, TOPICS, principals))
            tasks.create_task(self._prepare_databases(names))

    async def _prepare_databases(self, names: list[str]) -> None:
        databases = {name: self.database(name) for name in names}
        await provision(self.postgres.dsn(), databases)
        for name, service in load(names).items():
            await migrate(service, databases[name].owner_url(self.postgres.dsn()))
