"""One suite for every place files are kept in: a folder, and a server that speaks S3 over HTTP."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import httpx
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from contracts.identifiers import CompanyId, new_id
from infra.files import (
    FileAlteredError,
    FileId,
    FileMissingError,
    Files,
    FilesLocationError,
    FilesUnavailableError,
    S3Account,
    Written,
    open_files,
)

#: More than two parts of what S3 takes as the smallest.
LONG = secrets.token_bytes(11 * 1024 * 1024)


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def account(address: str) -> S3Account:
    return S3Account("of a test", "of a test", region="us-east-1", endpoint_url=address)


class Place(Protocol):
    """Where the files are, and what is really there."""

    files: Files

    def names(self) -> set[str]: ...

    def put(self, name: str, content: bytes) -> None: ...


class Folder:
    def __init__(self, folder: Path) -> None:
        self.files = open_files(folder.as_uri())
        self.folder = folder

    def names(self) -> set[str]:
        return {str(each.relative_to(self.folder)) for each in self.folder.rglob("*") if each.is_file()}

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)


class Bucket:
    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.bucket = f"files-{secrets.token_hex(4)}"
        assert self.client.put(f"/{self.bucket}").status_code == 200
        self.files = open_files(f"s3://{self.bucket}/finance", account(str(client.base_url)))

    def names(self) -> set[str]:
        assert "<Upload>" not in self.client.get(f"/{self.bucket}?uploads").text, "a part of a file is left"
        listed = self.client.get(f"/{self.bucket}?list-type=2").text.split("<Key>finance/")[1:]
        return {each.partition("</Key>")[0] for each in listed}

    def put(self, name: str, content: bytes) -> None:
        self.files._store.put(name, content)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield Folder(tmp_path / "files")
        return
    with httpx.Client(base_url=request.getfixturevalue("s3_address"), trust_env=False) as client:
        yield Bucket(client)


async def in_pieces(content: bytes, *, then: Exception | None = None) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), 64 * 1024):
        yield content[begin : begin + 64 * 1024]
    if then is not None:
        raise then


def file() -> FileId:
    return FileId(CompanyId(new_id()), new_id())


async def read(place: Place, which: FileId, written: Written) -> bytes:
    return b"".join([piece async for piece in await place.files.read(which, written)])


@pytest.mark.parametrize("content", [b"x", LONG], ids=["short", "in parts"])
async def test_what_is_written_is_read_again_whole_under_its_two_ids(place: Place, content: bytes) -> None:
    which = file()
    written = await place.files.write(which, in_pieces(content))
    assert written.size_bytes == len(content)
    assert place.names() == {f"{which.company_id}/{which.id}"}
    assert await read(place, which, written) == content


async def test_what_breaks_off_is_not_there_and_says_itself_why(place: Place) -> None:
    class BrokenOffError(Exception):
        pass

    for content in (b"x", LONG):
        with pytest.raises(BrokenOffError):
            await place.files.write(file(), in_pieces(content, then=BrokenOffError()))
    assert place.names() == set()


async def test_what_is_altered_is_never_given_as_a_whole(place: Place) -> None:
    which = file()
    content = LONG[: 1024 * 1024]
    written = await place.files.write(which, in_pieces(content))
    for altered in (content[:-1] + b"?", content[:-1], content + b"?", b""):
        place.put(str(which), altered)
        given = bytearray()

        async def take(given: bytearray = given) -> None:
            async for piece in await place.files.read(which, written):
                given += piece

        with pytest.raises(FileAlteredError):
            await take()
        assert len(given) < max(1, len(altered))


async def test_what_is_removed_is_gone_and_may_be_removed_again(place: Place) -> None:
    which = file()
    written = await place.files.write(which, in_pieces(b"x"))
    await place.files.remove(which)
    await place.files.remove(which)
    assert place.names() == set()
    with pytest.raises(FileMissingError):
        await place.files.read(which, written)


async def test_one_that_is_written_and_one_that_was_are_two(place: Place) -> None:
    ones = [file() for _ in range(3)]
    written = await asyncio.gather(*(place.files.write(one, in_pieces(str(one).encode())) for one in ones))
    for one, each in zip(ones, written, strict=True):
        assert await read(place, one, each) == str(one).encode()


async def test_a_store_that_is_away_is_a_dependency_that_is_away() -> None:
    away = open_files("s3://files", account("http://127.0.0.1:1"))
    for asked in (away.write(file(), in_pieces(b"x")), away.read(file(), Written(1, "")), away.remove(file())):
        with pytest.raises(FilesUnavailableError):
            await asked


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into what nobody may write into")
async def test_a_folder_one_may_not_write_into_is_a_dependency_that_is_away(tmp_path: Path) -> None:
    files = open_files(tmp_path.as_uri())
    tmp_path.chmod(0o500)
    with pytest.raises(FilesUnavailableError):
        await files.write(file(), in_pieces(b"x"))


@pytest.mark.parametrize("url", ["files", "http://x/y", "file://host/folder", "s3://", "s3://bucket", "file:relative"])
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(FilesLocationError):
        open_files(url)
