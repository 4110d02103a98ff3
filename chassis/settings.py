"""Settings every service has. They come from the environment only, are frozen, and a missing one refuses to start."""

from typing import Annotated, Any, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.kafka.connection import KafkaConnection

Settings = TypeVar("Settings", bound="ServiceSettings")


class SettingsError(Exception):
    """The environment does not hold what the service needs; the message names every variable and what is wrong."""


class ServiceSettings(BaseSettings):
    """A service's own class sets `env_prefix` to `KISUM_<SERVICE>_`, so that services can share one process."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    database_url: SecretStr
    database_connections_max: Annotated[int, Field(ge=1, le=100)] = 10
    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)]
    kafka_username: Annotated[str, Field(min_length=1)]
    kafka_password: SecretStr
    topic_prefix: str = ""
    token_issuer: Annotated[str, Field(min_length=1)]
    token_audience: Annotated[str, Field(min_length=1)]

    @property
    def kafka(self) -> KafkaConnection:
        return KafkaConnection(
            bootstrap_servers=self.kafka_bootstrap_servers,
            username=self.kafka_username,
            password=self.kafka_password.get_secret_value(),
            topic_prefix=self.topic_prefix,
        )


def read_settings(settings: type[Settings], **given: Any) -> Settings:
    """Build settings from the environment; raises SettingsError naming each variable that is missing or wrong."""
    try:
        return settings(**given)
    except ValidationError as error:
        prefix = settings.model_config.get("env_prefix", "")
        problems = (
            f"{prefix}{'_'.join(str(part) for part in problem['loc'])}".upper() + f": {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError("; ".join(problems)) from None
