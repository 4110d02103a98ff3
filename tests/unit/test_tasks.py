import asyncio

from infra.tasks import end_tasks


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    lost = 0

    async def deaf_once() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    await end_tasks(task)
    assert (task.cancelled(), lost) == (True, 1)


async def test_what_has_ended_or_fails_while_ending_is_over_too() -> None:
    async def nothing() -> None: ...

    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("while ending")

    done, failing = asyncio.create_task(nothing()), asyncio.create_task(fails())
    await asyncio.sleep(0)
    await end_tasks(done, failing)
    assert done.done()
    assert isinstance(failing.exception(), OSError)
