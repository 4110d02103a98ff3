"""A caller who asks the same question every millisecond: lean enough not to be what is measured."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

_INTERVAL_SECONDS: Final = 0.001
#: While one request waits for its answer the next goes out on the other. With more, requests would queue in the service
#: and the news they ask for behind them.
_CONNECTIONS: Final = 2
#: So many answers after the first wanted one must not fall back to what was before.
_CONFIRMATIONS: Final = 20


@dataclass(frozen=True)
class Answer:
    """`started` and `ended` are nanoseconds since 1970, as the clock of this machine had it."""

    started: int
    ended: int
    status: int


class UnexpectedAnswerError(Exception):
    """The question was answered otherwise than the story allows."""


class Poller:
    """Asks while it is entered. A request starts every millisecond, later only where both connections wait."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        target = urlsplit(url)
        self._host, self._port = target.hostname or "", target.port or 0
        lines = [f"GET {target.path}?{target.query} HTTP/1.1", f"Host: {target.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._arrived = asyncio.Condition()
        self._next_start = 0.0
        self._found: Answer | None = None
        self.answers: list[Answer] = []

    async def __aenter__(self) -> Self:
        self._streams = [await asyncio.open_connection(self._host, self._port) for _ in range(_CONNECTIONS)]
        self._next_start = asyncio.get_running_loop().time()
        self._tasks = [asyncio.create_task(self._ask(*stream)) for stream in self._streams]
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in self._streams:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def first(self, status: int, *, before: int, timeout_seconds: float) -> Answer:
        """The first answer with this status; all earlier ones have `before`, and later ones never again.

        Raises UnexpectedAnswerError or TimeoutError.
        """
        async with asyncio.timeout(timeout_seconds):
            seen = 0
            while (found := self._found) is None or self._started_after(found) < _CONFIRMATIONS:
                async with self._arrived:
                    await self._arrived.wait()
                self._raise_failure()
                for answer in self.answers[seen:]:
                    self._check(answer, status, before)
                    if answer.status == status and (self._found is None or answer.ended < self._found.ended):
                        self._found = answer
                seen = len(self.answers)
        return found

    @property
    def interval_ms(self) -> float:
        """The median time between the starts of two requests, up to the one waited for. There are two at least."""
        found = self._found
        starts = sorted(each.started for each in self.answers if found is None or each.started <= found.started)
        return statistics.median(later - earlier for earlier, later in pairwise(starts)) / 1e6

    def _started_after(self, found: Answer) -> int:
        return sum(answer.started > found.ended for answer in self.answers)

    def _check(self, answer: Answer, status: int, before: int) -> None:
        found = self._found
        if answer.status not in {status, before}:
            raise UnexpectedAnswerError(f"{answer.status}, where only {before} and then {status} is right")
        if found is not None and answer.status == before and answer.started > found.ended:
            raise UnexpectedAnswerError(f"{before} after {status} had been answered")

    def _raise_failure(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                now = loop.time()
                start = self._next_start = max(now, self._next_start + _INTERVAL_SECONDS)
                if start > now:
                    await asyncio.sleep(start - now)
                started = time.time_ns()
                writer.write(self._request)
                status = await _status_of(reader)
                self.answers.append(Answer(started, time.time_ns(), status))
                async with self._arrived:
                    self._arrived.notify_all()
        finally:
            async with self._arrived:
                self._arrived.notify_all()


async def _status_of(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end. Raises asyncio.IncompleteReadError where the server hangs up."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])
