import base64
from datetime import timedelta
from typing import Annotated

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class AuthSettings(ServiceSettings):
    """Auth's settings.

    `root_private_key` is the Ed25519 seed every signing key is signed with; `key_encryption_key` encrypts the private
    signing keys in the database. Both are 32 random bytes in base64url, as `secrets.token_urlsafe(32)` writes them.
    """

    model_config = SettingsConfigDict(env_prefix="KISUM_AUTH_")

    root_private_key: SecretStr
    key_encryption_key: SecretStr
    #: At most ten minutes (design §5, Identity): until then a signed-out token lives on where only the topic tells.
    access_token_lifetime_seconds: Annotated[int, Field(ge=30, le=600)] = 600
    refresh_token_lifetime_days: Annotated[int, Field(ge=1, le=90)] = 30

    @field_validator("root_private_key", "key_encryption_key")
    @classmethod
    def _is_32_bytes(cls, value: SecretStr) -> SecretStr:
        try:
            length = len(_decode(value))
        except ValueError:
            length = 0
        if length != 32:  # noqa: PLR2004  Ed25519 seeds and Fernet keys alike
            raise ValueError("is not 32 bytes in base64url")
        return value

    @property
    def access_token_lifetime(self) -> timedelta:
        return timedelta(seconds=self.access_token_lifetime_seconds)

    @property
    def refresh_token_lifetime(self) -> timedelta:
        return timedelta(days=self.refresh_token_lifetime_days)

    def root_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(_decode(self.root_private_key))

    def key_cipher(self) -> Fernet:
        return Fernet(base64.urlsafe_b64encode(_decode(self.key_encryption_key)))


def _decode(value: SecretStr) -> bytes:
    text = value.get_secret_value()
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
