"""The processes that answer on one port: who dies is replaced at once."""

import signal
import time
from dataclasses import dataclass
from multiprocessing import connection
from typing import Final

import structlog
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

#: How late a signal may be heard. A death is heard at once.
_TURN_SECONDS: Final = 0.5
#: How long a worker may take to import what it serves, when nothing in it can answer yet.
_IMPORT_SECONDS: Final = 60.0
#: How long to wait with the successor of one that ended before it served, by how many of those were before it in a row.
_PAUSES_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 5.0)

_log: Final = structlog.get_logger("kisum.workers")


@dataclass
class _Seen:
    """What is known of a worker. Times are of the monotonic clock.

    :ivar asked_at: since when it owes an answer; none where it owes none.
    :ivar replaced_at: when its successor is due; none while it lives.
    """

    has_answered: bool = False
    has_served: bool = False
    asked_at: float | None = None
    replaced_at: float | None = None


class Workers(Multiprocess):
    """uvicorn's own asks one worker after the other whether it is well, and waits up to 5 s for each answer: while one
    starts or hangs, it sees no other die. Here the kernel tells of deaths, and answers are read once they are there.

    A worker that cannot start what it serves ends all of them, unless one could before.

    :ivar has_failed: whether that is how they ended.
    """

    has_failed = False
    _has_served = False
    _failures = 0
    _seen: dict[Process, _Seen]

    def run(self) -> None:
        """Return when all workers have ended, because a signal asked for it or they cannot start."""
        self.init_processes()
        self._seen = {}
        while not self.should_exit.is_set():
            self.keep_subprocess_alive()
            living = [process.process.sentinel for process, seen in self._seen.items() if seen.replaced_at is None]
            connection.wait(living, timeout=_TURN_SECONDS)
            # First: Ctrl-C ends the workers too, and none of them is to be replaced.
            self.handle_signals()
        self.terminate_all()
        self.join_all()

    def keep_subprocess_alive(self) -> None:
        """Replace who has died, and end who hangs."""
        # Signals have added and removed some.
        known, self._seen = self._seen, {}
        for index, process in enumerate(self.processes):
            seen = known.get(process) or _Seen()
            if seen.replaced_at is None:
                self._look_at(process, seen)
            if seen.replaced_at is None or seen.replaced_at > time.monotonic():
                self._seen[process] = seen
            elif not self.has_failed:
                successor = self.processes[index] = Process(self.config, self.sockets)
                successor.start()
                self._seen[successor] = _Seen()

    def _look_at(self, process: Process, seen: _Seen) -> None:
        self._hear(process, seen)
        if self._hangs(seen):
            _log.error("a worker hangs and is killed", pid=process.pid)
            process.process.kill()
            process.process.join()
        if not process.process.is_alive():
            self._bury(process, seen)

    def _hear(self, process: Process, seen: _Seen) -> None:
        """Read what it answered, and ask again."""
        try:
            while process.parent_conn.poll():
                is_serving = process.parent_conn.recv()
                seen.has_answered, seen.asked_at = True, None
                if is_serving and not seen.has_served:
                    _log.info("a worker serves", pid=process.pid)
                    seen.has_served = self._has_served = True
                    self._failures = 0
            if seen.asked_at is None:
                process.parent_conn.send(b"ping")
                seen.asked_at = time.monotonic()
        except (OSError, EOFError):
            return  # it is dying, of which the kernel tells

    def _hangs(self, seen: _Seen) -> bool:
        allowed_seconds = self.config.timeout_worker_healthcheck if seen.has_answered else _IMPORT_SECONDS
        return seen.asked_at is not None and time.monotonic() - seen.asked_at > allowed_seconds

    def _bury(self, process: Process, seen: _Seen) -> None:
        process.kill()  # closes its pipes
        process.join()
        pause_seconds = 0.0
        # Who was killed from outside says nothing of its successor.
        if not seen.has_served and process.exitcode != -signal.SIGKILL:
            pause_seconds = _PAUSES_SECONDS[min(self._failures, len(_PAUSES_SECONDS) - 1)]
            self._failures += 1
        seen.replaced_at = time.monotonic() + pause_seconds
        if process.exitcode == STARTUP_FAILURE and not self._has_served:
            _log.critical("a worker cannot start what it serves; all are stopped", pid=process.pid)
            self.has_failed = True
            self.should_exit.set()
        else:
            _log.warning("a worker died", pid=process.pid, code=process.exitcode, replaced_in_seconds=pause_seconds)
