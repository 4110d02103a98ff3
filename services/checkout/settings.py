from typing import Annotated, Final

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from chassis.settings import AccessSettings
from contracts.payload import Currency

_WEBHOOK_SECRET_LENGTH_MIN: Final = 32


class CheckoutSettings(AccessSettings):
    """Checkout's settings.

    `webhook_secret` is shared with the payment provider: who knows it can report payments. `public_url` is where buyers
    and the provider reach this installation, without a path; `webhook_url` is where the provider does, if elsewhere, as
    the offline one that runs in the same container.
    """

    model_config = SettingsConfigDict(env_prefix="KISUM_CHECKOUT_")

    webhook_secret: SecretStr
    public_url: AnyHttpUrl
    webhook_url: AnyHttpUrl | None = None
    #: ISO 4217; sessions are priced in it.
    currency: Currency = "USD"
    #: Stripe's 23 h: an open session then is worth nothing any more.
    session_lifetime_seconds: Annotated[int, Field(ge=60, le=7 * 86_400)] = 23 * 3600

    @field_validator("webhook_secret")
    @classmethod
    def _is_long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < _WEBHOOK_SECRET_LENGTH_MIN:
            raise ValueError(f"is shorter than {_WEBHOOK_SECRET_LENGTH_MIN} characters")
        return value
