"""How a file is given out: under the name its owner gave it, and so that no browser runs what is in it."""

from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

#: It is what it is declared as, and whatever it holds is neither run nor given the rights of this address.
_HARMLESS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cache-Control": "no-store",
}
_ASCII_FIRST: Final = 0x20
_ASCII_LAST: Final = 0x7E


async def download(
    chunks: AsyncIterator[bytes], *, file_name: str, media_type: str, size_bytes: int | None = None
) -> StreamingResponse:
    """An answer that is saved, not shown, and given out as it comes.

    What fails before the first piece is raised here and answered as any refusal. What fails later breaks the
    connection: half a file is none.
    """
    headers = {**_HARMLESS, "Content-Disposition": disposition("attachment", file_name)}
    if size_bytes is not None:
        headers["Content-Length"] = str(size_bytes)
    first = await anext(chunks, b"")

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return StreamingResponse(whole(), media_type=media_type, headers=headers)


def saved(content: bytes, *, file_name: str, media_type: str) -> Response:
    """As `download`, of what is small and made at once."""
    return _whole("attachment", content, file_name, media_type)


def shown(content: bytes, *, file_name: str, media_type: str) -> Response:
    """An answer that a page may show in place: a picture we have drawn ourselves, never what somebody sent."""
    return _whole("inline", content, file_name, media_type)


def file_answer(*media_types: str) -> dict[str, Any]:
    """What OpenAPI is told of an answer that is a file of one of these."""
    return {"description": "The file", "content": {media_type: {} for media_type in media_types}}


def _whole(kind: str, content: bytes, file_name: str, media_type: str) -> Response:
    headers = {**_HARMLESS, "Content-Disposition": disposition(kind, file_name)}
    return Response(content, media_type=media_type, headers=headers)


def disposition(kind: str, file_name: str) -> str:
    """The header of RFC 6266: the name in full for who reads `filename*`, and an ASCII one for who does not."""
    plain = "".join(
        each if _ASCII_FIRST <= ord(each) <= _ASCII_LAST and each not in '"\\%' else "_" for each in file_name
    )
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"
