"""Bytes are kept exactly as long as a committed row tells of them.

A store and a database share no transaction. So a name is noted as unclaimed, and committed, before its first byte is
written; the transaction that writes the row which tells of the file takes the note away. Whatever happens between, what
nobody claimed is named by a note, and a job does away with both. What is removed is noted again in the transaction that
removes its row: the bytes go when it has stood for a while. Nobody ever has to list a store to find what is lost in it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Index, MetaData, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime

from chassis.jobs import again_and_again
from chassis.request import UnitsOfWork, component
from chassis.uploads import Upload
from contracts.errors import DomainError, Kind
from contracts.identifiers import CompanyId, new_id
from contracts.problems import ProblemCode
from infra.clock import Clock
from infra.files import FileId, Files, FilesUnavailableError, Written
from infra.postgres.companies import every_company, note_companies_of
from infra.postgres.database import Database
from infra.postgres.naming import NAMING_CONVENTION
from infra.postgres.row_security import isolate_by_company

#: Longer than a file takes to come in. Who takes longer yet is told to send it again.
UNCLAIMED_FOR: Final = timedelta(hours=1)
_UPLOAD_SECONDS_MAX: Final = 30 * 60
_REMOVING_INTERVAL_SECONDS: Final = 600.0

#: Of a note among those of its company: when it was made, and its file.
_Place = tuple[datetime, UUID]
_BEGINNING: Final[_Place] = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))

_log = structlog.get_logger("kisum.files")

#: Where the service keeps its files, as its composition root has opened them.
OwnFiles = Annotated[Files, component(Files)]


class UploadExpiredError(DomainError):
    """It came in so slowly that its bytes were taken for left behind."""

    kind = Kind.UNAVAILABLE
    code = ProblemCode.UPLOAD_EXPIRED.value
    title = "The upload took too long"


class _Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class UnclaimedFile(_Base):
    """A file no row tells of: not yet, or no more. Fenced by company."""

    __tablename__ = "unclaimed_files"
    __table_args__ = (Index(None, "company_id", "noted_at"),)

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    noted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


_CREATE: Final = (
    """
    create table unclaimed_files (
        company_id uuid not null, file_id uuid not null, noted_at timestamptz not null,
        primary key (company_id, file_id)
    )
    """,
    "create index unclaimed_files_company_id_noted_at_index on unclaimed_files (company_id, noted_at)",
)


def add_unclaimed_files_table(metadata: MetaData) -> None:
    """Make the table part of a service's metadata."""
    _Base.metadata.tables["unclaimed_files"].to_metadata(metadata)


def create_unclaimed_files(op: Any) -> None:
    """Create the table in an Alembic version, after `create_companies`. What this creates never changes."""
    for statement in _CREATE:
        op.execute(statement)
    isolate_by_company(op, "unclaimed_files")
    note_companies_of(op, "unclaimed_files")


def drop_unclaimed_files(op: Any) -> None:
    """Undo `create_unclaimed_files`."""
    op.execute("drop table unclaimed_files")


@dataclass(frozen=True)
class KeptFile:
    """A file whose bytes are there, and that is still to be claimed."""

    id: UUID
    written: Written


async def keep(begin: UnitsOfWork, files: Files, upload: Upload) -> KeptFile:
    """Take in the file of a request, after its scope was judged and outside of any transaction.

    Raises NotWhatItSaysError, FilesUnavailableError, or HTTPException for one that is too long; nothing is kept then.
    """
    chunks = await upload.begin()
    file = FileId(upload.access.company_id, new_id())
    async with begin() as work:
        work.add(UnclaimedFile(company_id=file.company_id, file_id=file.id, noted_at=upload.now))
    try:
        # Before its note may be taken for that of a file left behind.
        async with asyncio.timeout(_UPLOAD_SECONDS_MAX):
            return KeptFile(file.id, await files.write(file, chunks))
    except TimeoutError as error:
        raise UploadExpiredError(f"It may take {_UPLOAD_SECONDS_MAX // 60} minutes.") from error


async def claim(work: AsyncSession, file: FileId) -> None:
    """In the transaction of the row that tells of the file. Raises UploadExpiredError."""
    taken = delete(UnclaimedFile).where(*_is(file)).returning(UnclaimedFile.file_id)
    if (await work.execute(taken)).first() is None:
        raise UploadExpiredError("Send it again.")


def give_up(work: AsyncSession, file: FileId, now: datetime) -> None:
    """In the transaction that removes the row which told of the file."""
    work.add(UnclaimedFile(company_id=file.company_id, file_id=file.id, noted_at=now))


async def remove_unclaimed_files(components: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """A job: what nobody claimed within the hour is done away with."""

    async def pause() -> None:
        await asyncio.sleep(_REMOVING_INTERVAL_SECONDS)

    files = components[Files]
    await again_and_again("remove_unclaimed_files", lambda: remove_unclaimed(database, files, clock()), pause)


async def remove_unclaimed(database: Database, files: Files, now: datetime) -> None:
    """File by file, each under the lock of its note: who claims it at the same time finds it claimable or gone.

    One that cannot be removed keeps its note for the next time, and the others go.
    """
    async for company_id in every_company(database):
        place: _Place | None = _BEGINNING
        while place is not None:
            place = await _remove_next(database, files, company_id, now - UNCLAIMED_FOR, behind=place)


async def _remove_next(
    database: Database, files: Files, company_id: CompanyId, noted_before: datetime, *, behind: _Place
) -> _Place | None:
    """Where the note stood whose file was looked at; None behind the last."""
    standing = tuple_(UnclaimedFile.noted_at, UnclaimedFile.file_id)
    following = (
        select(UnclaimedFile)
        .where(UnclaimedFile.noted_at < noted_before, standing > behind)
        .order_by(UnclaimedFile.noted_at, UnclaimedFile.file_id)
    )
    async with database.unit_of_work(company_id=company_id) as work:
        note = (await work.scalars(following.limit(1).with_for_update(skip_locked=True))).first()
        if note is None:
            return None
        place, file = (note.noted_at, note.file_id), FileId(company_id, note.file_id)
        try:
            await files.remove(file)
        except FilesUnavailableError as error:
            _log.warning("a file nobody claimed is not removed and tried again", file=str(file), why=error.detail)
        else:
            await work.delete(note)
        return place


def _is(file: FileId) -> tuple[Any, ...]:
    return UnclaimedFile.company_id == file.company_id, UnclaimedFile.file_id == file.id
