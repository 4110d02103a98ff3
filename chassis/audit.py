"""The audit trail: who did what to which object, when, and what was different afterwards.

An entry is written by the operation, in the unit of work of what it tells of. It is never changed: the application's
role may add entries and read them, nothing else.

A version without an entry is one under which a state was published again, above what a log had of it (`StateTopic`):
nobody did anything, and nothing of the object is different.
"""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, MetaData, Text, UniqueConstraint, inspect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime

from chassis.paging import Listing, PageRequest
from chassis.routing import ResponseModel
from contracts.identifiers import CompanyId, UserId, new_id
from infra.postgres.naming import NAMING_CONVENTION
from infra.postgres.row_security import isolate_by_company

#: Columns that say nothing of the object: what it is, and what the entry says itself.
_NOT_ITS_OWN: Final = frozenset({"id", "company_id", "version", "created_by", "created_at"})

#: The columns of a row as JSON has them.
Snapshot = Mapping[str, Any]


class _Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class AuditEntry(_Base):
    """How an object came to a version. Fenced by company."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        CheckConstraint("version_after > coalesce(version_before, 0)", name="version_goes_up"),
        UniqueConstraint("company_id", "object_id", "version_after"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: None where no person did it: a job, an event of another service.
    actor_user_id: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(Text)
    #: The table of the object.
    object_type: Mapped[str] = mapped_column(Text)
    object_id: Mapped[UUID]
    #: None for what made the object.
    version_before: Mapped[int | None] = mapped_column(BigInteger)
    version_after: Mapped[int] = mapped_column(BigInteger)
    #: Of each column that is different: what it was and what it is.
    changes: Mapped[dict[str, Any]] = mapped_column(JSONB)


_CREATE: Final = (
    """
    create table audit_entries (
        id uuid primary key, company_id uuid not null, occurred_at timestamptz not null, actor_user_id uuid,
        action text not null, object_type text not null, object_id uuid not null,
        version_before bigint, version_after bigint not null, changes jsonb not null,
        constraint audit_entries_version_goes_up check (version_after > coalesce(version_before, 0)),
        constraint audit_entries_company_id_object_id_version_after_unique unique (company_id, object_id, version_after)
    )
    """,
    # The application's role is named like its database.
    """
    do $$ begin
        execute format('revoke update, delete, truncate on audit_entries from %I', current_database());
    end $$
    """,
)


def add_audit_table(metadata: MetaData) -> None:
    """Make the table part of a service's metadata."""
    _Base.metadata.tables["audit_entries"].to_metadata(metadata)


def create_audit_entries(op: Any) -> None:
    """Create the table in an Alembic version. What this creates never changes."""
    for statement in _CREATE:
        op.execute(statement)
    isolate_by_company(op, "audit_entries")


def drop_audit_entries(op: Any) -> None:
    """Undo `create_audit_entries`."""
    op.execute("drop table audit_entries")


def snapshot(row: Any) -> Snapshot:
    """What a row says of its object now. Taken before a change, for `record`."""
    names = (column.key for column in inspect(row).mapper.column_attrs if column.key not in _NOT_ITS_OWN)
    return {name: _as_json(getattr(row, name)) for name in names}


def record(
    work: AsyncSession,
    row: Any,
    action: str,
    *,
    actor: UserId | None,
    now: datetime,
    before: Snapshot | None = None,
) -> None:
    """Write down that an object was made, or, given what it said `before`, that it was changed.

    The row has its new version, one above the one it had.
    """
    was, became = before or {}, snapshot(row)
    changes = {
        name: {"before": was.get(name), "after": value} for name, value in became.items() if was.get(name) != value
    }
    work.add(
        AuditEntry(
            id=new_id(),
            company_id=row.company_id,
            occurred_at=now,
            actor_user_id=actor,
            action=action,
            object_type=row.__tablename__,
            object_id=row.id,
            version_before=None if before is None else row.version - 1,
            version_after=row.version,
            changes=changes,
        )
    )


class Change(ResponseModel):
    """What a field said and says."""

    before: Any
    after: Any


class AuditEntryBody(ResponseModel):
    id: UUID
    occurred_at: datetime
    actor_user_id: UUID | None
    action: str
    version_before: int | None
    version_after: int
    changes: dict[str, Change]


class HistoryPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    entries: list[AuditEntryBody]
    next: str | None = None


_ENTRIES: Final = Listing(AuditEntry, sorts={"version": AuditEntry.version_after}, default="-version")


async def history(work: AsyncSession, asked: PageRequest, company_id: CompanyId, object_id: UUID) -> HistoryPage:
    """What happened to an object, the newest first. Whether the caller may see the object is judged before."""
    of_object = AuditEntry.object_id == object_id
    page = await _ENTRIES.page(work, asked, company_id=company_id, scope=None, where=(of_object,))
    return HistoryPage(entries=[AuditEntryBody.model_validate(each) for each in page.rows], next=page.next)


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, tuple | list):
        return [_as_json(each) for each in value]
    return value
