from pydantic_settings import SettingsConfigDict

from chassis.settings import AccessSettings, FileSettings


class FinanceSettings(AccessSettings, FileSettings):
    """Finance's settings are those of every module, and where it keeps the files attached to what it knows."""

    model_config = SettingsConfigDict(env_prefix="KISUM_FINANCE_")
