from typing import Any

import pytest

from chassis.settings import SettingsError, read_settings
from infra.files import S3Account
from services.finance.settings import FinanceSettings

COMMON: dict[str, Any] = {
    "database_url": "postgresql://finance:secret@127.0.0.1:1/finance",
    "kafka_bootstrap_servers": "127.0.0.1:1",
    "kafka_username": "finance",
    "kafka_password": "secret",
    "token_issuer": "test",
    "token_audience": "kisum",
    "root_public_key": "A" * 43,
    "access_folder": "/nowhere",
}
ACCOUNT = {"files_access_key_id": "name", "files_secret_access_key": "a secret of the test"}


def test_a_bucket_has_an_account_and_its_secret_is_not_shown() -> None:
    given = {"files_url": "s3://bucket/finance", "files_endpoint_url": "https://store.test", **ACCOUNT}
    settings = read_settings(FinanceSettings, **COMMON, **given)
    assert settings.files_account == S3Account(
        "name", ACCOUNT["files_secret_access_key"], "us-east-1", "https://store.test"
    )
    assert ACCOUNT["files_secret_access_key"] not in f"{settings!r} {settings.files_account!r}"


def test_a_folder_needs_none() -> None:
    assert read_settings(FinanceSettings, **COMMON, files_url="file:///files").files_account is None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"files_url": "/files"},
        {"files_url": "http://files"},
        {"files_url": "s3://bucket"},
        {"files_url": "s3://bucket", "files_access_key_id": "name"},
        {"files_url": "s3://bucket", "files_endpoint_url": "store.test", **ACCOUNT},
    ],
)
def test_without_a_place_that_can_be_reached_a_service_refuses_to_start(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"(?i)files"):
        read_settings(FinanceSettings, **COMMON, **given)
