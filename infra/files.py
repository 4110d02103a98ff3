"""Where files are kept: in a folder, or in a store that speaks S3. One setting says which, and nothing else differs.

A file is known by the company it belongs to and an id; what a user called it is never part of where it lies. It is
there whole or not at all: it is written under another name, and gets its own when its last byte is there. The row that
tells of it keeps its size and SHA-256, and what is read is held against them.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from contracts.errors import DomainError, Kind
from contracts.identifiers import CompanyId

#: What S3 takes as the smallest part of a file that comes in parts. With two at a time it bounds the memory of a write.
_PART_BYTES: Final = 5 * 1024 * 1024
_PARTS_AT_ONCE: Final = 2
_READ_BYTES: Final = 256 * 1024


class FilesUnavailableError(DomainError):
    """The store is away or refused; nothing was kept."""

    kind = Kind.UNAVAILABLE
    code = "files_unavailable"
    title = "The files cannot be reached"


class FileMissingError(DomainError):
    """A row tells of a file that the store does not have: the store was not put back with its database."""

    kind = Kind.UNAVAILABLE
    code = "file_missing"
    title = "The file is not where it was put"


class FileAlteredError(Exception):
    """What the store gave is not what was put there. Raised before the last piece: nobody gets it as a whole."""


class FilesLocationError(ValueError):
    """A place that is neither a folder nor a bucket."""


@dataclass(frozen=True)
class FileId:
    """Which file. `str` of it is its name in the store: two ids, and nothing somebody else chose."""

    company_id: CompanyId
    id: UUID

    def __str__(self) -> str:
        return f"{self.company_id}/{self.id}"


@dataclass(frozen=True)
class Written:
    """What a file was found to be while it was written."""

    size_bytes: int
    #: In hexadecimal.
    sha256: str


@dataclass(frozen=True)
class S3Account:
    """How a store that speaks S3 is reached. Without an endpoint it is Amazon's of the region."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str
    endpoint_url: str | None = None


class Files:
    """The files of one service.

    :param folder: where the store is a folder of this machine, so that what was written can be brought to its disk.
    """

    def __init__(self, store: LocalStore | S3Store, *, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def write(self, file: FileId, chunks: AsyncIterator[bytes]) -> Written:
        """Keep what comes, as a whole. What `chunks` raises goes on to the caller, and nothing is kept.

        Raises FilesUnavailableError.
        """
        size_bytes = 0
        digest = hashlib.sha256()

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size_bytes
            async for chunk in chunks:
                size_bytes += len(chunk)
                digest.update(chunk)
                yield chunk

        try:
            await self._store.put_async(
                str(file), counted(), chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE, use_multipart=True
            )
            if self._folder is not None:
                await asyncio.to_thread(_bring_to_disk, self._folder / str(file))
        except (BaseError, OSError) as error:
            raise FilesUnavailableError(type(error).__name__) from error
        return Written(size_bytes, digest.hexdigest())

    async def read(self, file: FileId, written: Written) -> AsyncIterator[bytes]:
        """The file's bytes. When this returns the store has answered; what is asked for next is the first piece.

        Raises FileMissingError or FilesUnavailableError; the iterator raises FileAlteredError.
        """
        try:
            found = await self._store.get_async(str(file))
        except FileNotFoundError as error:
            raise FileMissingError(str(file)) from error
        except (BaseError, OSError) as error:
            raise FilesUnavailableError(type(error).__name__) from error
        return _proven(found.stream(_READ_BYTES), file, written)

    async def remove(self, file: FileId) -> None:
        """Do away with a file; one that is not there is none that is left. Raises FilesUnavailableError."""
        try:
            if self._folder is not None:
                await asyncio.to_thread(_remove_pieces, self._folder / str(file))
            await self._store.delete_async(str(file))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise FilesUnavailableError(type(error).__name__) from error


def open_files(url: str, account: S3Account | None = None) -> Files:
    """The files at `file:///folder` or `s3://bucket/prefix`. Raises FilesLocationError.

    A folder is made where there is none. A bucket is not, and nothing is asked of it yet; it should have a rule that
    ends multipart uploads nobody completed, for those of a process that was killed.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        folder = Path(parts.path)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Files(LocalStore(folder), folder=folder)
    if parts.scheme != "s3" or not parts.netloc:
        raise FilesLocationError(f"{url!r} is neither file:///folder nor s3://bucket/prefix")
    if account is None:
        raise FilesLocationError("a bucket needs an access key, its secret and a region")
    endpoint = account.endpoint_url or f"https://s3.{account.region}.amazonaws.com"
    store = S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        endpoint=endpoint,
        region=account.region,
        access_key_id=account.access_key_id,
        secret_access_key=account.secret_access_key,
        # Only an endpoint that says so itself is spoken to without TLS.
        client_options={
            "connect_timeout": "2 seconds",
            "timeout": "30 seconds",
            "allow_http": endpoint.startswith("http:"),
        },
        # A caller waits for the answer, so a store that does not answer soon is away.
        retry_config={"max_retries": 2},
    )
    return Files(store)


async def _proven(chunks: AsyncIterator[bytes], file: FileId, written: Written) -> AsyncIterator[bytes]:
    """Give each piece when the next is there, and the last when all of them are what was written."""
    digest = hashlib.sha256()
    held = b""
    async for chunk in chunks:
        digest.update(chunk)
        if held:
            yield held
        held = bytes(chunk)
    if digest.hexdigest() != written.sha256:
        raise FileAlteredError(str(file))
    yield held


def _remove_pieces(path: Path) -> None:
    """What a process that was killed while it wrote has left beside the file: pieces under its name and a number."""
    for piece in path.parent.glob(f"{path.name}#*"):
        piece.unlink(missing_ok=True)


def _bring_to_disk(path: Path) -> None:
    """After this a loss of power loses neither the bytes nor the name; before it, the name could be without bytes."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
