"""A lean HTTP client: some connections, each of which sends its next request when the last one is answered."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, cast

_HEAD_END: Final = b"\r\n\r\n"


class UnexpectedAnswerError(Exception):
    """An answer that is no 200."""


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], done: "asyncio.Future[None]") -> None:
        self._requests = requests
        self._done = done
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(_HEAD_END)
        if not separator:
            return
        lowered = head.lower()
        length = int(lowered.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not lowered.startswith(b"http/1.1 200"):
            self._end(UnexpectedAnswerError(self._received.decode()))
            return
        self._received = body[length:]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError("the server hung up"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._end(None)
            self._transport.close()
        else:
            self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)


async def send(port: int, requests: Sequence[bytes], *, connections: int) -> None:
    """Return when all are answered. Raises UnexpectedAnswerError and OSError."""
    loop, shared = asyncio.get_running_loop(), iter(requests)
    ends = [loop.create_future() for _ in range(connections)]
    for end in ends:
        await loop.create_connection(lambda end=end: _Connection(shared, end), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*ends)
