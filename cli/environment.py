"""What a service is given: its settings as variables of its environment, here or in a container."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from chassis.service import Service
from chassis.settings import AccessSettings, FileSettings, ServiceSettings

_TOKEN_AUDIENCE: Final = "kisum"  # noqa: S105  the audience of tokens is no secret


@dataclass(frozen=True)
class Places:
    """Where a service finds what it works with, and where it is found."""

    database_url: str
    kafka_bootstrap_servers: str
    access_folder: Path
    files_folder: Path
    public_url: str
    #: Where its own container reaches it, if not there.
    own_url: str | None = None


def environment_of(
    service: Service[Any], places: Places, *, token_issuer: str, secret: Callable[[str], str]
) -> dict[str, str]:
    """What `kisum serve SERVICE` reads. `secret` gives the secret of a name, made on first use and kept."""
    name = service.name
    settings = {
        "DATABASE_URL": places.database_url,
        "KAFKA_BOOTSTRAP_SERVERS": places.kafka_bootstrap_servers,
        "KAFKA_USERNAME": name,
        "KAFKA_PASSWORD": secret(f"kafka-{name}"),
        "TOKEN_ISSUER": token_issuer,
        "TOKEN_AUDIENCE": _TOKEN_AUDIENCE,
    }
    if issubclass(service.settings, AccessSettings):
        settings["ROOT_PUBLIC_KEY"] = _public_half(secret("auth-root-private-key"))
        settings["ACCESS_FOLDER"] = str(places.access_folder)
    if issubclass(service.settings, FileSettings):
        settings["FILES_URL"] = places.files_folder.as_uri()
    settings |= {field.upper(): secret(f"{name}-{field}".replace("_", "-")) for field in _own_secrets(service)}
    if "public_url" in service.settings.model_fields:
        settings["PUBLIC_URL"] = places.public_url
    if "webhook_url" in service.settings.model_fields and places.own_url is not None:
        settings["WEBHOOK_URL"] = places.own_url
    prefix = service.settings.model_config["env_prefix"]
    return {f"{prefix}{key}": value for key, value in settings.items()}


def _own_secrets(service: Service[Any]) -> list[str]:
    """The secrets only this service has; one with a default is an operator's to set."""
    return [
        name
        for name, field in service.settings.model_fields.items()
        if field.annotation is SecretStr and name not in ServiceSettings.model_fields
    ]


def _public_half(root_private_key: str) -> str:
    seed = base64.urlsafe_b64decode(root_private_key + "=")
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return base64.urlsafe_b64encode(public).rstrip(b"=").decode()
