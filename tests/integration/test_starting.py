"""A service may be stopped at any moment of its start; nothing of it may stay behind."""

import asyncio
import gc
import warnings

import pytest

from services.auth.app import service
from tests.harness.runtime import Runtime
from tests.harness.services import ENCRYPTION_KEY, ROOT_KEY, running_service


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100, 300])
async def test_a_service_stopped_while_it_starts_leaves_no_connection_behind(runtime: Runtime, turns: int) -> None:
    keys = {"root_private_key": ROOT_KEY, "key_encryption_key": ENCRYPTION_KEY}
    before = asyncio.all_tasks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with running_service(runtime, service, keys):
            for _ in range(turns):
                await asyncio.sleep(0)
        gc.collect()
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not left, [task.get_coro() for task in left]
