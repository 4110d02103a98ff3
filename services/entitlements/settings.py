from pydantic_settings import SettingsConfigDict

from chassis.settings import AccessSettings


class EntitlementsSettings(AccessSettings):
    """Core's settings: those of every service that decides from its own access cache."""

    model_config = SettingsConfigDict(env_prefix="KISUM_ENTITLEMENTS_")
