"""An event loop with a clock of its own, where processes can be killed and frozen, and all of it can be had again.

No thread, no selector, no wall clock: when nothing is left to do, time jumps to the next timer. Code runs in a
`Process`; whatever it starts or waits for belongs to it, by a context variable. Within a process callbacks keep their
order; between processes the loop draws who is next. The same code with the same `random.Random` does the same.

    loop = SimulatedLoop(Random(8123))
    relay = loop.process("auth relay 1")
    relay.start(run_relay())
    relay.kill_after(20)
    with closing(loop):
        loop.run_until_complete(history())

Sets of tasks have an order of their own here, the one the tasks were made in; sets of anything else are as Python has
them, so code whose behaviour depends on such an order is only repeatable under a fixed PYTHONHASHSEED.
"""

import asyncio
import ctypes
import gc
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context, ContextVar, copy_context
from random import Random
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MethodType
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

_CALLBACKS_MAX: Final = 5_000_000
#: Cancelled timers stay until their time comes; when this many have and they are the greater part, they are removed.
_CANCELLED_TIMERS_MIN: Final = 200
_TASKS_MIN: Final = 64
_NEVER: Final = -1
_SUSPENDED: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)
_WRAPPERS: Final = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"})

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_process: ContextVar["Process"] = ContextVar("process")


class SimulationStuckError(Exception):
    """The history goes on without end, or nothing can happen any more while somebody still waits."""


def current_process() -> "Process":
    """The process of the code that asks. Raises LookupError outside of a simulation."""
    return _process.get()


class Process:
    """A process of the simulated machines. Made by `SimulatedLoop.process`.

    :ivar name: for messages; a process that is started again after its death is another one, perhaps of the same name.
    :ivar context: code that runs in it belongs to the process: `loop.call_later(1, callback, context=process.context)`.
    :ivar steps: how many callbacks it has run.
    :ivar alive: until it is killed.
    :ivar frozen: between `freeze` and `thaw`.
    """

    __slots__ = (
        "_dies_at",
        "_hooks",
        "_loop",
        "_prune_at",
        "_ready",
        "_tasks",
        "alive",
        "context",
        "frozen",
        "name",
        "steps",
    )

    def __init__(self, loop: "SimulatedLoop", name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.steps = 0
        self.context = copy_context()
        self.context.run(_process.set, self)
        self._loop = loop
        self._dies_at = _NEVER
        self._ready: deque[_Handle] = deque()
        # Held until they are over: code of a killed process that nobody refers to would run its finally blocks.
        self._tasks: list[_Task] = []
        self._prune_at = _TASKS_MIN
        self._hooks: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<{self.name}{'' if self.alive else ', dead'}{', frozen' if self.frozen else ''}>"

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Run code in the process. Raises RuntimeError if it is dead."""
        if not self.alive:
            coroutine.close()
            raise RuntimeError(f"{self.name} is dead")
        return self._loop.create_task(coroutine, context=self.context.copy())

    def on_death(self, hook: Callable[[], object]) -> None:
        """Call this when the process is killed, in whatever code kills it: what a kernel does for the dead."""
        self._hooks.append(hook)

    def kill(self) -> None:
        """As by kill -9: none of its callbacks ever runs again, no finally block, no cancellation.

        Code that kills its own process goes on to its next await.
        """
        if not self.alive:
            return
        self.alive = False
        self._dies_at = _NEVER
        self._loop._bury(self)
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook()

    def kill_after(self, steps: int) -> None:
        """Kill it just before its so-manieth next callback; 1 is before the next."""
        if steps < 1:
            raise ValueError("a process dies before one of its next callbacks")
        if self.alive:
            self._dies_at = self.steps + steps - 1

    def freeze(self) -> None:
        """As by SIGSTOP: its callbacks wait, its timers are late. What it sent before goes on its way."""
        if self.alive and not self.frozen:
            self.frozen = True
            self._loop._withdraw(self)

    def thaw(self) -> None:
        """As by SIGCONT."""
        if self.alive and self.frozen:
            self.frozen = False
            if self._ready:
                self._loop._runnable.append(self)

    def _hold(self, task: "_Task") -> None:
        tasks = self._tasks
        tasks.append(task)
        if len(tasks) >= self._prune_at:
            # Failures nobody took note of yet stay as well.
            self._tasks = [known for known in tasks if not known.done() or known._log_traceback]
            self._prune_at = max(_TASKS_MIN, 2 * len(self._tasks))


class _Task(asyncio.Task[Any]):
    """A task whose place in a set depends on its number, not on its address."""

    _log_traceback: bool

    def __init__(self, number: int, coroutine: Coroutine[Any, Any, Any], **how: Any) -> None:
        self._number = number
        super().__init__(coroutine, **how)

    def __hash__(self) -> int:
        return self._number


class _Handle(asyncio.TimerHandle):
    """A callback of a process, soon or at a time."""

    __slots__ = ("_process",)

    _callback: Callable[..., object] | None
    _args: tuple[Any, ...]
    _context: Context
    _source_traceback = None
    _repr = None

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context,
        process: Process,
        when: float,
    ) -> None:
        # The base classes' constructors would do what is of no use here, for every callback.
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._process = process
        self._when = when
        self._scheduled = False

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = ()
            if self._scheduled:
                self._process._loop._timer_was_cancelled()


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs processes, and `outside` what belongs to none: the history that starts and kills them.

    :param random: draws which process is next.
    :param callbacks_max: how many callbacks may run; more raise SimulationStuckError.

    :ivar outside: the process of code that was not started in another; it cannot die before the loop is closed.
    :ivar callbacks: how many have run.
    :ivar trace: a list to which time, process and callback of each step are appended; none is kept unless one is given.
    """

    _stopping: bool

    def __init__(self, random: Random, *, callbacks_max: int = _CALLBACKS_MAX) -> None:
        super().__init__()
        self.callbacks = 0
        self.callbacks_max = callbacks_max
        self.trace: list[tuple[float, str, str]] | None = None
        self._random = random
        self._now = 0.0
        self._numbers = 0
        self._runnable: list[Process] = []
        #: Time, number in the order they were asked for, and what is to be called.
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timers_cancelled = 0
        self._failures: list[BaseException] = []
        self._processes: list[Process] = []
        self.outside = self.process("outside")

    def process(self, name: str) -> Process:
        """A new process, with nothing to do yet."""
        made = Process(self, name)
        self._processes.append(made)
        return made

    @property
    def exceptions(self) -> list[BaseException]:
        """What callbacks raised, and what tasks ended with that nobody took note of, except in killed processes."""
        unnoted = [
            task.exception()
            for process in self._processes
            if process.alive
            for task in process._tasks
            if task.done() and task._log_traceback
        ]
        self._failures += [error for error in unnoted if error is not None]
        return self._failures

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        if context is None:
            context = copy_context()
        process = context.get(_process) or self.outside
        handle = _Handle(callback, args, context, process, 0.0)
        if process.alive:
            self._make_ready(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if context is None:
            context = copy_context()
        process = context.get(_process) or self.outside
        handle = _Handle(callback, args, context, process, when)
        if process.alive:
            self._numbers += 1
            handle._scheduled = True
            heapq.heappush(self._timers, (when, self._numbers, handle))
        return handle

    def create_task(
        self,
        coro: Generator[Any, None, Result] | Coroutine[Any, Any, Result],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> "asyncio.Task[Result]":
        if self.is_closed():
            raise RuntimeError("the loop is closed")
        if context is None:
            context = copy_context()
        self._numbers += 1
        task = _Task(self._numbers, coro, loop=self, name=name or "", context=context)  # type: ignore[arg-type]
        (context.get(_process) or self.outside)._hold(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._failures.append(context.get("exception") or RuntimeError(context["message"]))

    def run_in_executor(self, executor: Any, func: Callable[[*Arguments], Any], *args: *Arguments) -> NoReturn:
        raise NotImplementedError(f"{func!r} asks for a thread: a simulation has none, give its process a port for it")

    def get_debug(self) -> bool:
        return False

    def close(self) -> None:
        """Kill what lives, and forget all code as it stands, without running it any further."""
        if self.is_closed():
            return
        if self.is_running():
            raise RuntimeError("a running loop cannot be closed")
        self._failures = self.exceptions
        for process in self._processes:
            process.kill()
        tasks = [task for process in self._processes for task in process._tasks]
        _forget(task.get_coro() for task in tasks if not task.done())
        for task in tasks:
            if task.done():
                task._log_traceback = False
        for process in self._processes:
            process._tasks.clear()
        self._processes.clear()
        super().close()

    def _run_once(self) -> None:
        """All that there is, until the loop is stopped: `run_forever` calls this over and over."""
        runnable = self._runnable
        draw = self._random.random
        while not self._stopping:
            if not runnable:
                self._let_time_pass()
            process = runnable[int(draw() * len(runnable))]
            ready = process._ready
            handle = ready.popleft()
            if not ready:
                runnable.remove(process)
            if handle._cancelled:
                continue
            if process.steps == process._dies_at:
                process.kill()
                continue
            process.steps += 1
            self.callbacks += 1
            if self.callbacks > self.callbacks_max:
                raise self._livelock(handle)
            if self.trace is not None:
                self.trace.append((self._now, process.name, _name_of(handle)))
            try:
                handle._context.run(handle._callback, *handle._args)  # type: ignore[arg-type]  # it was not cancelled
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  as in any loop: a callback has nobody to tell
                self._failures.append(error)

    def _let_time_pass(self) -> None:
        """Until a process has something to do."""
        timers = self._timers
        while not self._runnable or (timers and timers[0][0] <= self._now):
            if not timers:
                raise SimulationStuckError(f"at {self._now:.3f} s nothing can happen any more: {self._processes}")
            when, _, handle = heapq.heappop(timers)
            if handle._cancelled:
                self._timers_cancelled -= 1
                continue
            self._now = max(self._now, when)
            handle._scheduled = False
            self._make_ready(handle)

    def _make_ready(self, handle: _Handle) -> None:
        process = handle._process
        ready = process._ready
        if not ready and not process.frozen:
            self._runnable.append(process)
        ready.append(handle)

    def _timer_was_cancelled(self) -> None:
        self._timers_cancelled += 1
        timers = self._timers
        if self._timers_cancelled > _CANCELLED_TIMERS_MIN and self._timers_cancelled * 2 > len(timers):
            timers[:] = [timer for timer in timers if not timer[2]._cancelled]
            heapq.heapify(timers)
            self._timers_cancelled = 0

    def _withdraw(self, process: Process) -> None:
        if process in self._runnable:
            self._runnable.remove(process)

    def _bury(self, process: Process) -> None:
        self._withdraw(process)
        process._ready.clear()
        self._timers[:] = [
            timer for timer in self._timers if timer[2]._process is not process and not timer[2]._cancelled
        ]
        heapq.heapify(self._timers)
        self._timers_cancelled = 0

    def _livelock(self, handle: _Handle) -> SimulationStuckError:
        busiest = max(self._processes, key=lambda process: process.steps)
        return SimulationStuckError(
            f"more than {self.callbacks_max} callbacks by {self._now:.3f} s: {busiest.name} alone had {busiest.steps}; "
            f"the next was {_name_of(handle)} of {handle._process.name}"
        )


def _name_of(handle: _Handle) -> str:
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, _Task):
        return f"{getattr(owner.get_coro(), '__qualname__', 'a task')} {owner._number}"
    return getattr(callback, "__qualname__", None) or type(callback).__name__


def _forget(suspended: Iterable[object]) -> None:
    """Let code that will never go on be dropped without its finally blocks, and without a warning if it never began.

    CPython runs them once nobody refers to a coroutine, and marks it, so as to do it only once. The mark is the lowest
    bit of the word before the object; it is set here on all that hangs on the given code, as far as it can be reached:
    what it awaits, and the generators of the context managers it is in.
    """
    seen: set[int] = set()
    found: list[Any] = list(suspended)
    while found:
        one = found.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        kind = type(one)
        if kind in _SUSPENDED:
            ctypes.c_size_t.from_address(id(one) - ctypes.sizeof(ctypes.c_size_t)).value |= 1
            found += gc.get_referents(one)
        elif kind is MethodType:
            found.append(one.__self__)
        elif kind in (tuple, list, deque):
            found += one
        elif kind.__module__ == "contextlib":
            found += vars(one).values()
        elif kind.__name__ in _WRAPPERS:
            found += gc.get_referents(one)
