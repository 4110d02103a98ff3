import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra.embedded.jars import prepare as prepare_jars
from infra.embedded.state import StateFolder
from infra.embedded.supervisor import Supervisor


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def state(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StateFolder]:
    # Under a folder that nobody else may enter, as a checkout under root's home is.
    closed: Path = tmp_path_factory.mktemp("closed")
    state = StateFolder.open(closed / "home")
    await asyncio.to_thread(prepare_jars, state)
    yield state
    state.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    await supervisor.stop_all()
