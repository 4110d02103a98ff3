from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kisum import Kisum
from tests.harness.runtime import Runtime


@pytest.fixture
def kisum(tmp_path: Path) -> Iterator[Kisum]:
    installation = Kisum(tmp_path / "kisum")
    yield installation
    installation.run("down")
    if installation.home.exists():
        installation.run("reset", "--yes")


@pytest.fixture(scope="session", autouse=True)
def _jars_are_there(runtime: Runtime) -> None:
    """The run's own Kafka has fetched what these tests must find without a network."""
