from pydantic_settings import SettingsConfigDict

from chassis.settings import AccessSettings


class AccessResolverSettings(AccessSettings):
    """The resolver's settings are those of every module."""

    model_config = SettingsConfigDict(env_prefix="KISUM_ACCESS_RESOLVER_")
