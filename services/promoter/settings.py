from pydantic_settings import SettingsConfigDict

from chassis.settings import AccessSettings


class PromoterSettings(AccessSettings):
    """Promoter's settings are those of every module."""

    model_config = SettingsConfigDict(env_prefix="KISUM_PROMOTER_")
