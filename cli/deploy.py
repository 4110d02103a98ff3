"""`kisum deploy`: what docker-compose.yml needs, made here, and what its `bootstrap` container does."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import click
from dotenv import dotenv_values
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.migrations import migrate
from chassis.settings import SettingsError, read_settings
from cli import progress
from cli.environment import Places, environment_of
from cli.registry import load, service_names
from contracts.topics import TOPICS
from infra.embedded.errors import CannotStart
from infra.embedded.state import StateFolder, write_private
from infra.kafka.bootstrap import BootstrapError, bootstrap
from infra.kafka.connection import KafkaConnection
from infra.postgres.provision import ServiceDatabase, provision
from infra.telemetry.logging import configure_terminal

_ROOT: Final = Path(__file__).parents[1]
_SERVER: Final = "postgres:5432"
_SUPERUSER: Final = "kisum"
KAFKA_ADMIN: Final = "admin"
_GATEWAY_PORT: Final = 8080
_PROMETHEUS_PORT: Final = 9090
_BROKERS: Final = ("kafka-1", "kafka-2", "kafka-3")
_ACCESS_FOLDER: Final = Path("/var/lib/kisum/access")
_FILES_FOLDER: Final = Path("/var/lib/kisum/files")


class _BootstrapSettings(BaseSettings):
    """Of the one container that holds administrators' passwords."""

    model_config = SettingsConfigDict(env_prefix="KISUM_BOOTSTRAP_", frozen=True, extra="forbid")

    administrator_url: SecretStr
    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)]
    kafka_username: Annotated[str, Field(min_length=1)]
    kafka_password: SecretStr
    replication_factor: Annotated[int, Field(ge=1, le=3)]
    #: By `kafka-SERVICE`, `postgres-SERVICE` and `postgres-SERVICE-owner`.
    passwords: dict[str, SecretStr]

    def password(self, name: str) -> str:
        """Raises CannotStart where a service has come since `kisum deploy init` ran."""
        if name not in self.passwords:
            raise CannotStart(f"there is no password {name}: run `kisum deploy init` again, which keeps what there is")
        return self.passwords[name].get_secret_value()


@click.group()
def deploy() -> None:
    """Kisum in containers."""


@deploy.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=_ROOT / ".kisum-deploy",
    help="Where secrets and each service's settings are kept.  [default: .kisum-deploy]",
)
@click.option(
    "--settings",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_ROOT / ".env",
    help="The file docker compose reads.  [default: .env]",
)
@click.option("--cluster", is_flag=True, help="Three brokers, each state three times, and two of each service.")
@click.option("--port", type=click.IntRange(1, 65535), help="The gateway's port.  [default: 8080]")
@click.option("--public-url", help="Where callers reach the gateway.  [default: http://127.0.0.1:PORT]")
def init(*, folder: Path, settings: Path, cluster: bool, port: int | None, public_url: str | None) -> None:
    """Make the secrets and settings that docker-compose.yml reads; what there is already is kept.

    Each service gets a file of its own with its own secrets and no others, of mode 0600.
    """
    is_kept = settings.exists()
    state = make_deployment(folder, settings, cluster=cluster, port=port, public_url=public_url)
    click.echo(
        f"{settings} {'is kept as it is' if is_kept else 'says what is started'}; {state.path} holds the secrets."
    )
    click.echo("Next: `docker compose up --wait`")


def make_deployment(
    folder: Path, settings: Path, *, cluster: bool = False, port: int | None = None, public_url: str | None = None
) -> StateFolder:
    """What `kisum deploy init` does. Raises CannotStart."""
    is_kept = settings.exists()
    if is_kept:
        cluster, port = _as_chosen(settings, cluster=cluster, port=port)
    port = port or _GATEWAY_PORT
    state = StateFolder.open(folder)
    brokers = _BROKERS if cluster else _BROKERS[:1]
    for name, variables in _environments(state, brokers, public_url or f"http://127.0.0.1:{port}").items():
        write_private(state.path / f"{name}.env", _env_file(variables))
    if not is_kept:
        choices = {
            "KISUM_DEPLOY_FOLDER": str(
                state.path.relative_to(_ROOT) if state.path.is_relative_to(_ROOT) else state.path
            ),
            "KISUM_GATEWAY_ADDRESS": "127.0.0.1",
            "KISUM_GATEWAY_PORT": str(port),
            "KISUM_PROMETHEUS_PORT": str(_PROMETHEUS_PORT),
            "KISUM_VERSION": "local",
            "KISUM_INSTANCES": "2" if cluster else "1",
            "COMPOSE_PROFILES": "cluster" if cluster else "",
            "KISUM_KAFKA_VOTERS": ",".join(f"{number}@{broker}:9093" for number, broker in enumerate(brokers, 1)),
            "KISUM_KAFKA_REPLICAS": str(len(brokers)),
        }
        write_private(settings, "".join(f"{name}={value}\n" for name, value in choices.items()))
    return state


def _as_chosen(settings: Path, *, cluster: bool, port: int | None) -> tuple[bool, int]:
    """What the file of an earlier run says. Raises CannotStart where something else is asked for now."""
    chosen = dotenv_values(settings)
    is_cluster, chosen_port = chosen.get("COMPOSE_PROFILES") == "cluster", int(chosen["KISUM_GATEWAY_PORT"] or 0)
    if (cluster and not is_cluster) or port not in {None, chosen_port}:
        raise CannotStart(f"{settings} says otherwise: change it there, or remove it and run `kisum deploy init` again")
    return is_cluster, chosen_port


@deploy.command(name="bootstrap")
def run_bootstrap() -> None:
    """Bring PostgreSQL and Kafka to what the services need: databases, roles, migrations, topics, users, rights.

    It reads KISUM_BOOTSTRAP_... and runs in the `bootstrap` container; a second run changes nothing.
    """
    configure_terminal()
    try:
        settings: _BootstrapSettings = read_settings(_BootstrapSettings)
        asyncio.run(_bootstrap(settings))
    except SettingsError as error:
        raise CannotStart(f"the settings of bootstrap are not complete: {error}") from None
    except BootstrapError as error:
        raise CannotStart(str(error)) from error


async def _bootstrap(settings: _BootstrapSettings) -> None:
    names = service_names()
    administrator = KafkaConnection(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        username=settings.kafka_username,
        password=settings.kafka_password.get_secret_value(),
    )
    principals = {name: settings.password(f"kafka-{name}") for name in names}
    databases = {
        name: ServiceDatabase(
            name=name,
            password=settings.password(f"postgres-{name}"),
            owner_password=settings.password(f"postgres-{name}-owner"),
        )
        for name in names
    }
    report = await asyncio.to_thread(
        bootstrap, administrator, TOPICS, principals, replication_factor=settings.replication_factor
    )
    progress.line(
        f"Kafka: {len(report.topics_created)} topics and {len(report.users_created)} users made,"
        f" {len(report.passwords_changed)} passwords changed, {len(report.rights_granted)} rights granted,"
        f" {len(report.rights_removed)} removed"
    )
    url = settings.administrator_url.get_secret_value()
    await provision(url, databases)
    for name, service in load(names).items():
        await migrate(service, databases[name].owner_url(url))
    progress.line(f"PostgreSQL: {len(names)} databases are at their newest versions")


def _environments(state: StateFolder, brokers: tuple[str, ...], public_url: str) -> Mapping[str, Mapping[str, str]]:
    """What each container is given, by the name of its file."""
    servers = ",".join(f"{broker}:9092" for broker in brokers)
    superuser, administrator = state.secret("postgres-superuser"), state.secret("kafka-admin")
    administrator_url = f"postgresql://{_SUPERUSER}:{superuser}@{_SERVER}/postgres"
    names = service_names()
    environments: dict[str, Mapping[str, str]] = {
        "postgres": {"POSTGRES_PASSWORD": superuser},
        "kafka": kafka_environment(cluster_id_of(state.identity), administrator),
        "bootstrap": {
            "KISUM_BOOTSTRAP_ADMINISTRATOR_URL": administrator_url,
            "KISUM_BOOTSTRAP_KAFKA_BOOTSTRAP_SERVERS": servers,
            "KISUM_BOOTSTRAP_KAFKA_USERNAME": KAFKA_ADMIN,
            "KISUM_BOOTSTRAP_KAFKA_PASSWORD": administrator,
            "KISUM_BOOTSTRAP_REPLICATION_FACTOR": str(len(brokers)),
            "KISUM_BOOTSTRAP_PASSWORDS": json.dumps(
                {
                    name: state.secret(name)
                    for service in names
                    for name in (f"kafka-{service}", f"postgres-{service}", f"postgres-{service}-owner")
                }
            ),
        },
    }
    for name, service in load(names).items():
        database = ServiceDatabase(name=name, password=state.secret(f"postgres-{name}"), owner_password="")
        places = Places(
            database_url=database.url(administrator_url),
            kafka_bootstrap_servers=servers,
            access_folder=_ACCESS_FOLDER,
            files_folder=_FILES_FOLDER,
            public_url=public_url,
            own_url=f"http://{name}:8000",
        )
        environments[name] = {
            "SERVICE": name,
            "KISUM_ROUTE_GROUP": service.manifest.route_group,
            **environment_of(service, places, token_issuer=f"kisum-{state.identity}", secret=state.secret),
        }
    return environments


def _env_file(variables: Mapping[str, str]) -> str:
    """In quotes within which docker compose reads every character as it is; no value of ours has one of them."""
    return "".join(f"{name}='{value}'\n" for name, value in variables.items())


def kafka_environment(cluster_id: str, password: str) -> Mapping[str, str]:
    """What a broker of docker-compose.yml is given beside what stands there: the administrator, the cluster's id."""
    login = f'required username="{KAFKA_ADMIN}" password="{password}"'
    modules = "org.apache.kafka.common.security"
    return {
        "CLUSTER_ID": cluster_id,
        "ADMIN_USERNAME": KAFKA_ADMIN,
        "ADMIN_PASSWORD": password,
        "KAFKA_LISTENER_NAME_CLIENT_SCRAM___SHA___512_SASL_JAAS_CONFIG": f"{modules}.scram.ScramLoginModule {login};",
        "KAFKA_LISTENER_NAME_CONTROLLER_PLAIN_SASL_JAAS_CONFIG": (
            f'{modules}.plain.PlainLoginModule {login} user_{KAFKA_ADMIN}="{password}";'
        ),
    }


def cluster_id_of(identity: str) -> str:
    """Sixteen bytes in Kafka's own alphabet, the same for all brokers and for ever."""
    digest = hashlib.sha256(f"cluster of {identity}".encode()).digest()[:16]
    return base64.urlsafe_b64encode(b"\x00" + digest[1:]).decode().rstrip("=")
