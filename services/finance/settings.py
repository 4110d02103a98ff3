from pydantic_settings import SettingsConfigDict

from chassis.settings import AccessSettings


class FinanceSettings(AccessSettings):
    """Finance's settings are those of every module."""

    model_config = SettingsConfigDict(env_prefix="KISUM_FINANCE_")
