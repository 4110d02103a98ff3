"""Asks Finance over plain connections: lean enough to ask hundreds of times a second beside what is asked."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tests.chaos.company import Question
from tests.chaos.oracle import Answer, Asked
from tests.chaos.people import Person

_TIMEOUT_SECONDS: Final = 10.0
#: After so many questions another connection, so that no worker has all of them.
_QUESTIONS_PER_CONNECTION: Final = 20
_FORBIDDEN: Final = 403
_UNAVAILABLE: Final = 503
_TOLD_LENGTH: Final = 300


@dataclass(frozen=True)
class _Received:
    status: int
    body: bytes


class Asker:
    """One question at a time, about any person, for one company."""

    def __init__(self, url: str, company_id: str) -> None:
        target = urlsplit(url)
        self._host, self._port, self._prefix = target.hostname or "", target.port or 0, target.path
        self._company_id = company_id
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._questions = 0

    async def ask(self, person: Person, question: Question) -> Asked[str, Question]:
        """Ask once. No failure of the other side raises."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                received = await self._exchange(person, question)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            return Asked(str(person.id), question, started, time.monotonic(), Answer.NONE, type(error).__name__)
        ended = time.monotonic()
        answer = _answer_of(received.status, question)
        told = "" if answer in {Answer.ALLOWED, Answer.REFUSED} else _told(received)
        return Asked(str(person.id), question, started, ended, answer, told)

    def close(self) -> None:
        """Let go of the connection; the next question makes another."""
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream[1].close()
        self._stream = None
        self._questions = 0

    async def _exchange(self, person: Person, question: Question) -> _Received:
        # A server hangs up on who has not asked for some seconds.
        if self._questions >= _QUESTIONS_PER_CONNECTION or (self._stream is not None and self._stream[0].at_eof()):
            self.close()
        if self._stream is None:
            self._stream = await asyncio.open_connection(self._host, self._port)
        self._questions += 1
        reader, writer = self._stream
        writer.write(self._request(person, question))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        body = await reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return _Received(int(head.split(b" ", 2)[1]), body)

    def _request(self, person: Person, question: Question) -> bytes:
        lines = [
            f"{question.method} {self._prefix}{question.path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"Authorization: Bearer {person.token}",
            f"Kisum-Company-Id: {self._company_id}",
        ]
        body = ""
        if question.method == "POST":
            body = "{}"
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def _answer_of(status: int, question: Question) -> Answer:
    if status == question.passed:
        return Answer.ALLOWED
    return {_FORBIDDEN: Answer.REFUSED, _UNAVAILABLE: Answer.UNKNOWN}.get(status, Answer.WRONG)


def _told(received: _Received) -> str:
    try:
        problem = json.loads(received.body)
        return f"{received.status} {problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{received.status} {received.body[:_TOLD_LENGTH]!r}"
