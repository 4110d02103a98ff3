import asyncio
import gc
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from tests.simulation.loop import Process, SimulatedLoop, SimulationStuckError, current_process

_ROOT = Path(__file__).parents[2]


def _seeded(seed: int, **how: Any) -> SimulatedLoop:
    return SimulatedLoop(Random(seed), **how)


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    with closing(_seeded(1)) as made:
        yield made


async def _count(seen: list[Any], name: object, times: int) -> None:
    for number in range(times):
        seen.append((name, number))
        await asyncio.sleep(0)


async def _for_ever(seen: list[Any]) -> None:
    try:
        while True:
            seen.append("step")
            await asyncio.sleep(0)
    finally:
        seen.append("finally")


# Determinism.


async def _busy(loop: SimulatedLoop) -> None:
    """Some of everything: tasks in sets, queues, timers, a process that is killed and one that is frozen."""
    delays = itertools.cycle((0.3, 0.1, 0.7, 0.2, 0.9))
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def produce(count: int) -> None:
        for number in range(count):
            await asyncio.sleep(next(delays))
            await queue.put(number)

    async def consume() -> None:
        while True:
            async with asyncio.timeout(30):
                await queue.get()

    async def cancel_one_after_the_other() -> None:
        tasks = {asyncio.create_task(consume()) for _ in range(50)}
        await asyncio.wait(tasks, timeout=3)
        for task in tasks:
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait(tasks)

    names = ("producer", "consumer", "victim", "sleeper")
    producer, consumer, victim, sleeper = (loop.process(name) for name in names)
    waited = [producer.start(produce(40)), consumer.start(cancel_one_after_the_other())]
    victim.start(consume())
    victim.kill_after(5)
    sleeper.start(consume())
    await asyncio.sleep(2)
    sleeper.freeze()
    await asyncio.sleep(5)
    sleeper.thaw()
    await asyncio.gather(*waited)


def _trace(seed: int) -> list[tuple[float, str, str]]:
    with closing(_seeded(seed)) as loop:
        loop.trace = []
        loop.run_until_complete(_busy(loop))
        assert loop.exceptions == []
        return loop.trace


def test_the_same_seed_does_the_same(loop: SimulatedLoop) -> None:
    first = _trace(8123)
    # What follows has other addresses than what was before.
    held = [loop.create_task(_wait_for_nothing()) for _ in range(37)]
    assert _trace(8123) == first
    assert len(first) > 300
    del held


def test_another_seed_does_it_in_another_order() -> None:
    assert _trace(8123) != _trace(8124)


def test_another_interpreter_does_the_same() -> None:
    program = f"import {__name__} as this, hashlib; print(hashlib.sha256(repr(this._trace(8123)).encode()).hexdigest())"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=_ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1


def test_a_process_keeps_its_order_and_processes_overtake_each_other() -> None:
    orders = set()
    for seed in range(20):
        with closing(_seeded(seed)) as loop:
            seen: list[tuple[str, int]] = []

            async def both(loop: SimulatedLoop = loop, seen: list[tuple[str, int]] = seen) -> None:
                await asyncio.gather(*(loop.process(name).start(_count(seen, name, 3)) for name in "ab"))

            loop.run_until_complete(both())
            for name in "ab":
                assert [number for of, number in seen if of == name] == [0, 1, 2]
            orders.add("".join(name for name, _ in seen))
    assert len(orders) > 5


def test_code_belongs_to_the_process_it_was_started_in(loop: SimulatedLoop) -> None:
    one, two = loop.process("one"), loop.process("two")
    asked, told = asyncio.Queue[None](), asyncio.Queue[Process]()

    async def child() -> Process:
        return current_process()

    async def answer() -> None:
        await asked.get()
        await told.put(await asyncio.create_task(child()))

    async def ask() -> tuple[Process, Process]:
        asked.put_nowait(None)
        return current_process(), await told.get()

    async def both() -> tuple[Process, Process]:
        two.start(answer())
        return await one.start(ask())

    assert loop.run_until_complete(both()) == (one, two)


# Time.


def test_time_jumps_to_the_next_timer(loop: SimulatedLoop) -> None:
    async def sleep() -> list[float]:
        times = [loop.time()]
        await asyncio.sleep(3600)
        times.append(loop.time())
        await asyncio.gather(asyncio.sleep(2), asyncio.sleep(0.5))
        times.append(loop.time())
        return times

    assert loop.run_until_complete(sleep()) == [0.0, 3600.0, 3602.0]


def test_timeouts_end_what_takes_too_long_and_nothing_else(loop: SimulatedLoop) -> None:
    async def within(seconds: float) -> str:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(seconds)
        except TimeoutError:
            return f"cut at {loop.time()}"
        return f"done at {loop.time()}"

    assert loop.run_until_complete(within(0.5)) == "done at 0.5"
    assert loop.run_until_complete(within(5)) == "cut at 1.5"
    # Its timer was cancelled: nothing happens at 1.0 after the first.
    assert loop.run_until_complete(within(0.9)) == "done at 2.4"


def test_cancelled_timers_do_not_pile_up(loop: SimulatedLoop) -> None:
    async def many() -> None:
        for _ in range(5000):
            async with asyncio.timeout(1000):
                await asyncio.sleep(0.001)

    loop.run_until_complete(many())
    assert len(loop._timers) < 1000


def test_the_parts_of_asyncio_work(loop: SimulatedLoop) -> None:
    async def parts() -> list[object]:
        found: list[object] = []
        event, lock, condition = asyncio.Event(), asyncio.Lock(), asyncio.Condition()
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def hold(seconds: float) -> float:
            async with lock:
                await asyncio.sleep(seconds)
            return loop.time()

        async def tell() -> None:
            for number in range(3):
                await queue.put(number)
            event.set()
            async with condition:
                condition.notify_all()

        async def fail() -> None:
            raise ValueError

        async def wait_for_it() -> None:
            async with condition:
                await condition.wait()

        waiting = asyncio.create_task(wait_for_it())
        found.append(await asyncio.gather(hold(1), hold(2), fail(), return_exceptions=True))
        telling = asyncio.create_task(tell())
        found.append([await queue.get() for _ in range(3)])
        await event.wait()
        await asyncio.gather(telling, waiting)
        shielded = asyncio.create_task(hold(1))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(shielded), 0.5)
        found.append(await shielded)
        async with asyncio.TaskGroup() as group:
            of_group = [group.create_task(hold(1)) for _ in range(2)]
        found.append([task.result() for task in of_group])
        done, pending = await asyncio.wait(
            [asyncio.create_task(asyncio.sleep(1)), asyncio.create_task(asyncio.sleep(2))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        found.append((len(done), len(pending)))
        return found

    times, numbers, *rest = loop.run_until_complete(parts())
    assert isinstance(times, list)
    assert times[:2] == [1.0, 3.0]
    assert isinstance(times[2], ValueError)
    assert numbers == [0, 1, 2]
    assert rest == [4.0, [5.0, 6.0], (1, 1)]


def test_an_abandoned_generator_is_closed_while_its_process_lives(loop: SimulatedLoop) -> None:
    seen: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            seen.append("closed")

    async def take_one() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(2)

    loop.run_until_complete(take_one())
    assert seen == ["closed"]


# Death.


@pytest.mark.parametrize("steps", range(1, 8))
def test_a_process_dies_before_the_callback_it_is_told_to(loop: SimulatedLoop, steps: int) -> None:
    seen: list[Any] = []
    died: list[float] = []
    victim, other = loop.process("victim"), loop.process("other")
    victim.on_death(lambda: died.append(loop.time()))

    async def history() -> None:
        victim.start(_for_ever(seen))
        victim.kill_after(steps)
        await other.start(_count([], "other", 50))
        await asyncio.sleep(1)

    loop.run_until_complete(history())
    assert seen == ["step"] * (steps - 1)
    assert died == [0.0]
    assert not victim.alive
    assert victim.steps == steps - 1


def test_the_dead_do_nothing_more(loop: SimulatedLoop) -> None:
    seen: list[str] = []
    victim = loop.process("victim")
    woken = loop.create_future()

    async def sleep() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            seen.append("slept")

    async def wait() -> None:
        try:
            await woken
        finally:
            seen.append("woken")

    async def history() -> None:
        waiting = [victim.start(sleep()), victim.start(wait())]
        loop.call_later(1, seen.append, "a timer", context=victim.context)
        await asyncio.sleep(0.5)
        victim.kill()
        victim.kill()
        woken.set_result(None)
        for task in waiting:
            task.cancel()
        loop.call_later(1, seen.append, "a late timer", context=victim.context)
        await asyncio.sleep(5)
        with pytest.raises(RuntimeError, match="victim is dead"):
            victim.start(sleep())

    loop.run_until_complete(history())
    assert seen == []
    assert loop.exceptions == []


class _Blocks:
    """Code in which every finally block is noted."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    @contextmanager
    def plain(self, name: str) -> Iterator[None]:
        try:
            yield
        finally:
            self.ended.append(name)

    @asynccontextmanager
    async def asynchronous(self, name: str) -> AsyncIterator[None]:
        try:
            if name == "one that is not entered yet":
                await asyncio.Event().wait()
            yield
        finally:
            self.ended.append(name)

    async def nested(self) -> None:
        try:
            with self.plain("a context manager"):
                async with self.asynchronous("an asynchronous one"), AsyncExitStack() as stack:
                    stack.enter_context(self.plain("one of a stack"))
                    await stack.enter_async_context(self.asynchronous("an asynchronous one of a stack"))
                    async with self.asynchronous("one that is not entered yet"):
                        pass
        finally:
            self.ended.append("a finally block")

    async def numbers(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.Event().wait()
        finally:
            self.ended.append("a generator")

    async def iterating(self) -> None:
        async for _ in self.numbers():
            await asyncio.sleep(0)

    async def holding(self, *parts: Awaitable[None]) -> None:
        await asyncio.Event().wait()
        await asyncio.gather(*parts)

    def start(self, process: Process) -> None:
        process.start(self.nested())
        process.start(self.iterating())
        process.start(self.holding(self.nested(), self.nested()))


def test_code_of_the_dead_is_dropped_without_its_finally_blocks(recwarn: pytest.WarningsRecorder) -> None:
    """Neither while the history goes on, nor when the loop is closed, nor at garbage collection."""
    blocks = _Blocks()

    async def history(loop: SimulatedLoop) -> None:
        victim = loop.process("victim")
        blocks.start(victim)
        await asyncio.sleep(1)
        blocks.start(victim)  # Does not even begin.
        victim.kill()
        blocks.start(loop.process("unfinished"))
        await asyncio.sleep(1)
        gc.collect()

    with closing(_seeded(1)) as loop:
        loop.run_until_complete(history(loop))
        assert loop.exceptions == []
    del loop
    gc.collect()
    assert blocks.ended == []
    assert [str(warning.message) for warning in recwarn.list] == []


def test_a_process_can_kill_itself(loop: SimulatedLoop) -> None:
    seen: list[str] = []

    async def end() -> None:
        current_process().kill()
        seen.append("until the next await")
        await asyncio.sleep(0)
        seen.append("beyond it")

    async def history() -> None:
        loop.process("victim").start(end())
        await asyncio.sleep(1)

    loop.run_until_complete(history())
    assert seen == ["until the next await"]


# Sleep.


def test_a_frozen_process_waits_and_is_late(loop: SimulatedLoop) -> None:
    sleeper = loop.process("sleeper")
    seen: list[tuple[str, float]] = []
    box: asyncio.Queue[str] = asyncio.Queue()

    async def tick() -> None:
        for number in range(3):
            await asyncio.sleep(1)
            seen.append((f"tick {number}", loop.time()))

    async def receive() -> None:
        while True:
            seen.append((await box.get(), loop.time()))

    async def history() -> None:
        ticking = sleeper.start(tick())
        sleeper.start(receive())
        await asyncio.sleep(1.5)
        sleeper.freeze()
        box.put_nowait("a message")
        await asyncio.sleep(10)
        sleeper.thaw()
        await ticking

    loop.run_until_complete(history())
    assert seen[0] == ("tick 0", 1.0)
    assert sorted(seen[1:3]) == [("a message", 11.5), ("tick 1", 11.5)]
    assert seen[3:] == [("tick 2", 12.5)]


def test_a_frozen_process_can_be_killed(loop: SimulatedLoop) -> None:
    sleeper = loop.process("sleeper")
    seen: list[Any] = []

    async def history() -> None:
        sleeper.freeze()
        sleeper.start(_for_ever(seen))
        await asyncio.sleep(1)
        sleeper.kill()
        sleeper.thaw()
        await asyncio.sleep(1)

    loop.run_until_complete(history())
    assert seen == []


# What goes wrong.


def test_a_livelock_is_found_and_named() -> None:
    seen: list[Any] = []
    with closing(_seeded(1, callbacks_max=2000)) as loop:
        loop.process("relay").start(_for_ever(seen))
        with pytest.raises(
            SimulationStuckError, match=r"2000 callbacks by 0\.000 s: relay alone had \d{4}; .*_for_ever"
        ):
            loop.run_until_complete(loop.process("patient").start(_wait_for_nothing()))


def test_a_deadlock_is_found(loop: SimulatedLoop) -> None:
    with pytest.raises(SimulationStuckError, match="nothing can happen any more"):
        loop.run_until_complete(_wait_for_nothing())


async def _wait_for_nothing() -> None:
    await asyncio.Event().wait()


def test_what_nobody_took_note_of_is_collected(loop: SimulatedLoop) -> None:
    async def fail(message: str) -> None:
        raise ValueError(message)

    def fail_at_once() -> None:
        raise ValueError("a callback")

    async def history() -> None:
        noted = asyncio.create_task(fail("noted"))
        await asyncio.gather(noted, return_exceptions=True)
        for number in range(100):
            asyncio.create_task(fail(f"task {number}"))  # noqa: RUF006  the loop holds them
        loop.call_soon(fail_at_once)
        victim = loop.process("victim")
        victim.start(fail("of the dead"))
        await asyncio.sleep(1)
        victim.kill()

    loop.run_until_complete(history())
    loop.close()
    assert sorted(map(str, loop.exceptions)) == sorted(["a callback", *(f"task {number}" for number in range(100))])
    assert len(loop.exceptions) == 101


@pytest.mark.parametrize("ask", [lambda: asyncio.to_thread(print), lambda: asyncio.open_connection("127.0.0.1", 9)])
def test_there_is_nothing_outside(loop: SimulatedLoop, ask: Callable[[], Awaitable[Any]]) -> None:
    async def history() -> None:
        with pytest.raises(NotImplementedError):
            await ask()

    loop.run_until_complete(history())


def test_thousands_of_runs_leave_nothing_behind() -> None:
    """All histories run in one interpreter: objects are as many after 2,000 runs as after 200, and so is memory."""

    async def history(loop: SimulatedLoop) -> None:
        held = bytearray(50_000)

        async def wait() -> int:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1)
            return len(held)

        async def fail() -> None:
            raise ValueError

        processes = [loop.process(name) for name in ("one", "two", "three")]
        for process in processes:
            process.start(wait())
            process.start(fail())
            process.on_death(held.clear)
        await asyncio.sleep(1)
        processes[0].kill()

    def run_one(seed: int) -> None:
        with closing(_seeded(seed)) as loop:
            loop.run_until_complete(history(loop))

    def run(times: int) -> tuple[int, int]:
        for seed in range(times):
            run_one(seed)
        gc.collect()
        return len(gc.get_objects()), psutil.Process().memory_info().rss

    objects, size_bytes = run(200)
    objects_later, size_later_bytes = run(1800)
    assert objects_later - objects < 50
    assert size_later_bytes - size_bytes < 8_000_000
