"""A file as it comes in: the body of a request, read once, piece by piece, and held against what it says it is.

The body is the file and nothing else, its media type the `Content-Type`; what else there is to say of it is in the
query. So no form has to be taken apart, and nothing is kept in memory or in a second place. How much it may be is said
by `chassis.routing.takes_bytes` and judged by its announced length before a byte is read, and while it is read.
"""

import codecs
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.message import Message
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from chassis.idempotency import KeyHeader, Once, check_key, once
from chassis.request import Access, Now
from contracts.errors import DomainError, Kind
from contracts.problems import ProblemCode
from middleware.context import AccessContext

MEBIBYTE: Final = 1024 * 1024
PDF: Final = "application/pdf"
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
CSV: Final = "text/csv"
PLAIN_TEXT: Final = "text/plain"
FILE_NAME_LENGTH_MAX: Final = 200

#: By which bytes a file begins. A library that knows hundreds of kinds answers with a likelihood; of the few that are
#: taken each has one beginning, and what has none of them is refused or has to be text from its first byte to its last.
_SIGNATURES: Final[Mapping[str, bytes]] = {PDF: b"%PDF-", PNG: b"\x89PNG\r\n\x1a\n", JPEG: b"\xff\xd8\xff"}
_SIGNATURE_BYTES_MAX: Final = max(len(each) for each in _SIGNATURES.values())
_NOT_TEXT: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class NotWhatItSaysError(DomainError):
    kind = Kind.INVALID
    code = ProblemCode.FILE_NOT_WHAT_IT_SAYS.value
    title = "The file is not what its Content-Type says"
    pointer = "header content-type"


def _safe_file_name(name: str) -> str:
    # What is not printable includes the marks that turn the direction of writing, and so hide what a name ends with.
    if not name.isprintable() or "/" in name or "\\" in name or not name.strip(" ."):
        raise PydanticCustomError("file_name", "A file name has no slashes and no control characters")
    return name


#: What the sender calls the file. It is shown and never used as a path.
FileName = Annotated[str, Query(min_length=1, max_length=FILE_NAME_LENGTH_MAX), AfterValidator(_safe_file_name)]


@dataclass(frozen=True)
class Upload:
    """A request whose body is a file of this media type."""

    request: Request
    access: AccessContext
    now: datetime
    key: str | None
    media_type: str

    async def begin(self) -> AsyncIterator[bytes]:
        """Read the first bytes; what it gives has them too, to the body's end.

        A body that is too long by its announced length or begins with other bytes than its media type is refused here,
        before anything is kept of it; the rest by the iterator. Raises NotWhatItSaysError or HTTPException.
        """
        check_key(self.key)
        body = self._body()
        head = b""
        async for chunk in body:
            head += chunk
            if len(head) >= _SIGNATURE_BYTES_MAX:
                break
        found = next((kind for kind, signature in _SIGNATURES.items() if head.startswith(signature)), None)
        if not head:
            raise NotWhatItSaysError("It is empty.")
        if found != (self.media_type if self.media_type in _SIGNATURES else None):
            raise NotWhatItSaysError(f"It is sent as {self.media_type} and begins as {found or 'something else'}.")
        return self._whole(head, body)

    def once(self, work: AsyncSession, sha256: str) -> Once:
        """The request as one that may be a repetition, once the whole of its body is known."""
        return once(
            self.request, work, self.access, self.now, key=self.key, body=f"{self.media_type} {sha256}".encode()
        )

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self.request.stream():
                if chunk:
                    yield chunk
        except ClientDisconnect:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the body broke off") from None

    async def _whole(self, head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        text = None if self.media_type in _SIGNATURES else codecs.getincrementaldecoder("utf-8")()
        _check_text(text, head)
        yield head
        async for chunk in rest:
            _check_text(text, chunk)
            yield chunk
        _check_text(text, b"", final=True)


def uploaded(*media_types: str) -> Any:
    """A dependency on the request's file; one of another media type is answered 415."""

    async def provide(request: Request, access: Access, now: Now, idempotency_key: KeyHeader = None) -> Upload:
        header = Message()
        header["content-type"] = request.headers.get("content-type", "")
        declared = header["content-type"].partition(";")[0].strip().lower()
        if declared not in media_types or header.get_content_charset("utf-8") != "utf-8":
            raise HTTPException(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {' or '.join(media_types)}, and text as utf-8"
            )
        return Upload(request, access, now, idempotency_key, declared)

    return Depends(provide)


def upload_body(*media_types: str) -> dict[str, Any]:
    """What OpenAPI is told of a route that takes a file: its `openapi_extra`."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": dict.fromkeys(media_types, binary)}}


def _check_text(decoder: Any, chunk: bytes, *, final: bool = False) -> None:
    if decoder is None:
        return
    try:
        text = decoder.decode(chunk, final)
    except UnicodeDecodeError:
        raise NotWhatItSaysError("It is sent as text and is not UTF-8.") from None
    if _NOT_TEXT.search(text):
        raise NotWhatItSaysError("It is sent as text and has control characters.")
