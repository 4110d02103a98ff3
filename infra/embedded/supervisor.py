"""Keeps child processes running: ready when started, restarted when they die, gone when it is."""

import asyncio
import time

import structlog

from infra.embedded.child import Child, last_line, launch, stop, stop_orphan
from infra.embedded.errors import CannotStart

log = structlog.get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 0.2
_LONGEST_BACKOFF_SECONDS = 5.0
_STEADY_SECONDS = 30.0
"""A child that ran this long is restarted at once again."""
_READY_INTERVAL_SECONDS = 0.05
_KILL_RESERVE_SECONDS = 0.5


class _Running:
    def __init__(self, child: Child, process: asyncio.subprocess.Process) -> None:
        self.child = child
        self.process = process
        self.watcher: asyncio.Task[None] | None = None


class Supervisor:
    """Runs children of this process. Idle, it waits for the kernel to report a death and costs nothing."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._order: list[str] = []

    async def start(self, child: Child) -> None:
        """Start the child and wait until it is ready. Raises CannotStart with the last line of its log if it is not.

        What an earlier run left of it is stopped first.
        """
        if child.name in self._order:
            raise CannotStart(f"{child.name} is already started")
        self._order.append(child.name)
        try:
            await stop_orphan(child.pid_path, child.stop_signal)
            process = await launch(child)
            running = self._running[child.name] = _Running(child, process)
            await _wait_ready(child, process)
        except BaseException:
            self._order.remove(child.name)
            failed = self._running.pop(child.name, None)
            if failed:
                await stop(failed.process, child.stop_signal, 1.0)
                child.pid_path.unlink(missing_ok=True)
            raise
        running.watcher = asyncio.create_task(self._watch(running), name=f"watch {child.name}")

    def pids(self) -> dict[str, int]:
        """The process of each child, in the order of their start."""
        return {name: self._running[name].process.pid for name in self._order if name in self._running}

    async def stop_all(self, timeout_seconds: float = 10.0) -> None:
        """Stop every child, the last started first; what does not stop in its time is killed."""
        end = time.monotonic() + timeout_seconds - _KILL_RESERVE_SECONDS
        for running in self._running.values():
            if running.watcher:
                running.watcher.cancel()
        await asyncio.gather(*(r.watcher for r in self._running.values() if r.watcher), return_exceptions=True)
        while self._order:
            name = self._order.pop()
            if name not in self._running:
                continue  # its start has not come to a process
            running = self._running.pop(name)
            child = running.child
            # One slow child must leave each of the others a second to end in order.
            allowed_seconds = max(0.0, min(child.stop_timeout_seconds, end - time.monotonic() - len(self._order)))
            if not await stop(running.process, child.stop_signal, allowed_seconds):
                log.warning("child_killed", child=child.name, waited_seconds=round(allowed_seconds, 1))
            child.pid_path.unlink(missing_ok=True)

    async def _watch(self, running: _Running) -> None:
        child = running.child
        backoff_seconds = _FIRST_BACKOFF_SECONDS
        while True:
            ready_at = time.monotonic()
            code = await running.process.wait()
            if time.monotonic() - ready_at > _STEADY_SECONDS:
                backoff_seconds = _FIRST_BACKOFF_SECONDS
            log.warning(
                "child_died", child=child.name, code=code, restart_in_seconds=backoff_seconds,
                last_line=last_line(child.log_path),
            )  # fmt: skip
            while True:
                await asyncio.sleep(backoff_seconds)
                backoff_seconds = min(2 * backoff_seconds, _LONGEST_BACKOFF_SECONDS)
                try:
                    running.process = await launch(child)
                    await _wait_ready(child, running.process)
                except (CannotStart, OSError) as error:
                    log.warning("child_not_restarted", child=child.name, reason=str(error))
                    await stop(running.process, child.stop_signal, child.stop_timeout_seconds)
                else:
                    log.info("child_restarted", child=child.name, pid=running.process.pid)
                    break


async def _wait_ready(child: Child, process: asyncio.subprocess.Process) -> None:
    died = asyncio.create_task(process.wait())
    try:
        async with asyncio.timeout(child.ready_timeout_seconds):
            while not await child.ready():
                await asyncio.wait([died], timeout=_READY_INTERVAL_SECONDS)
                if died.done():
                    raise CannotStart(
                        f"{child.name} ended with code {died.result()}:"
                        f" {last_line(child.log_path)} (all in {child.log_path})"
                    )
    except TimeoutError:
        raise CannotStart(
            f"{child.name} was not ready within {child.ready_timeout_seconds:.0f} s:"
            f" {last_line(child.log_path)} (all in {child.log_path})"
        ) from None
    finally:
        died.cancel()
