"""Settings every service has. They come from the environment only, are frozen, and a missing one refuses to start."""

import base64
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from access.freshness import Bounds
from infra.files import S3Account
from infra.kafka.connection import KafkaConnection

WORKERS_MAX: Final = 64

Settings = TypeVar("Settings", bound="ServiceSettings")
_AnySettings = TypeVar("_AnySettings", bound=BaseSettings)


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
    #: How many processes of the service share its port and, where it has one, its access cache.
    workers: Annotated[int, Field(ge=1, le=WORKERS_MAX)] = 1

    @property
    def kafka(self) -> KafkaConnection:
        return KafkaConnection(
            bootstrap_servers=self.kafka_bootstrap_servers,
            username=self.kafka_username,
            password=self.kafka_password.get_secret_value(),
            topic_prefix=self.topic_prefix,
        )


class AccessSettings(ServiceSettings):
    """Settings of a service that decides from its own access cache: all but Auth, which has the rows themselves.

    `root_public_key` is the public half of the key every signing key is signed with, 32 bytes in base64url. The bounds
    say how stale the access state may be (design §5); past them a request is answered 503.
    """

    root_public_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}=?$")]
    access_folder: Path
    access_hard_bound_seconds: Annotated[float, Field(gt=0, le=45)] = 45
    access_hard_reading_bound_seconds: Annotated[float, Field(gt=0, le=300)] = 300

    @property
    def root_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(self.root_public_key.rstrip("=") + "="))

    @property
    def bounds(self) -> Bounds:
        return Bounds(
            soft_seconds=min(10.0, self.access_hard_bound_seconds),
            hard_seconds=self.access_hard_bound_seconds,
            hard_reading_seconds=self.access_hard_reading_bound_seconds,
        )


class FileSettings(ServiceSettings):
    """Settings of a service that keeps files, beside those it has anyway.

    `files_url` is file:///folder, one that every instance of the service reaches, or s3://bucket/prefix; the other four
    are of the bucket's account. The endpoint is that of a store which is not Amazon's.
    """

    files_url: Annotated[str, Field(pattern=r"^(file:///|s3://)")]
    files_region: str = "us-east-1"
    files_endpoint_url: Annotated[str | None, Field(pattern="^https?://")] = None
    files_access_key_id: str | None = None
    files_secret_access_key: SecretStr | None = None

    @model_validator(mode="after")
    def _has_an_account(self) -> Self:
        given = self.files_access_key_id is not None and self.files_secret_access_key is not None
        if self.files_url.startswith("s3:") and not given:
            raise ValueError("files_access_key_id and files_secret_access_key are needed for an s3:// files_url")
        return self

    @property
    def files_account(self) -> S3Account | None:
        if self.files_access_key_id is None or self.files_secret_access_key is None:
            return None
        return S3Account(
            access_key_id=self.files_access_key_id,
            secret_access_key=self.files_secret_access_key.get_secret_value(),
            region=self.files_region,
            endpoint_url=self.files_endpoint_url,
        )


def read_settings(settings: type[_AnySettings], **given: Any) -> _AnySettings:
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
