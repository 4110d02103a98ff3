"""Read-only copies of what other services publish: one `Projection` for each state topic a service keeps a copy of.

A row of a copy holds the newest state of its object that was understood, and the revision of the newest that was not.
Each of the two is replaced by what is not older, so it does not matter how often and in which order states come, and
no inbox is needed. What its owner published as `unknown`, or this version cannot read, is withheld: what was known
stays to be shown, and is not believed (`is_known`) until a state comes that is as new.

A service names its copies once, in `Service.projections`; it follows their topics as its other work. The name of the
topic is the copy's, for its consumer group, its dead letters and `kisum replay SERVICE --projection NAME`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Text, Uuid, delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, declared_attr, mapped_column
from sqlalchemy.schema import SchemaItem

from chassis.states import parsed_key
from contracts.envelope import Envelope
from contracts.identifiers import CompanyId
from contracts.topics import TOPICS
from infra.kafka.clients import Kafka
from infra.kafka.work import ParkError, WorkConsumer, event_of, is_filler
from infra.outbox.survey import is_believable, read_through, revision_of
from infra.postgres.companies import enter_company, every_company, note_companies_of
from infra.postgres.database import Database
from infra.postgres.row_security import isolate_by_company

#: What an owner publishes in place of a state that could not be (infra/outbox/unknown.py).
_UNKNOWN: Final = "unknown"
_REMOVED: Final = "removed"
#: The columns of a revision: of the state that is understood, and of one that is not.
_UNDERSTOOD: Final = ("epoch", "version")
_WITHHELD: Final = ("withheld_epoch", "withheld_version")
_RULES: Final = {
    "a_state_is_told": "greatest(epoch, withheld_epoch) >= 1 and least(version, withheld_version) >= 0",
    "status_is_understood": "(epoch = 0) = (status is null) and status <> 'unknown'",
}
#: Records per transaction of a replay: what the live consumer waits for at most.
_CHUNK_RECORDS: Final = 200

_Subject = tuple[CompanyId, UUID]
_Revision = tuple[int, int]
#: Of a row: the one that is understood, then the one that is withheld.
_Revisions = tuple[int, int, int, int]


class Projected:
    """What every copy has beside the columns it is kept for, all of which may be null. Fenced by company."""

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[SchemaItem, ...]:
        return tuple(CheckConstraint(rule, name=name) for name, rule in _RULES.items())

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: Of the newest state that was understood; zeros where none was.
    epoch: Mapped[int] = mapped_column(BigInteger, server_default="0")
    version: Mapped[int] = mapped_column(BigInteger, server_default="0")
    #: Of the newest state that is withheld; zeros where none was.
    withheld_epoch: Mapped[int] = mapped_column(BigInteger, server_default="0")
    withheld_version: Mapped[int] = mapped_column(BigInteger, server_default="0")
    #: As its owner publishes it; null where no state was understood.
    status: Mapped[str | None] = mapped_column(Text)

    @property
    def is_known(self) -> bool:
        """Whether the newest state there is is the one these columns are of."""
        return (self.epoch, self.version) >= (self.withheld_epoch, self.withheld_version)

    @property
    def is_removed(self) -> bool:
        """Whether there is no such object, as its owner says."""
        return self.status == _REMOVED


def create_projection(op: Any, table: str, *columns: Column[Any]) -> None:
    """Create a copy's table in an Alembic version, with these columns of its own, after `create_companies`.

    What this creates beside them never changes.
    """
    op.create_table(
        table,
        Column("company_id", Uuid(), primary_key=True),
        Column("id", Uuid(), primary_key=True),
        *(Column(name, BigInteger(), nullable=False, server_default="0") for name in (*_UNDERSTOOD, *_WITHHELD)),
        Column("status", Text()),
        *columns,
        *(CheckConstraint(rule, name=f"{table}_{name}") for name, rule in _RULES.items()),
    )
    isolate_by_company(op, table)
    note_companies_of(op, table)


@dataclass
class Replayed:
    """What a replay found.

    :ivar applied: states that were read and taken over, or were here already.
    :ivar unreadable: records this version cannot read.
    :ivar removed: rows that the log does not tell of as they were; those it tells of otherwise are back as it does.
    """

    applied: int = 0
    unreadable: int = 0
    removed: int = 0


class Projection:
    """The copy of one state topic of a module, whose keys are company and object.

    :param name: the topic.
    :param table: the model of the rows.
    :param columns_of: the copy's own columns of a state's payload; nulls for one that was removed.
    """

    def __init__(self, name: str, table: type[Projected], *, columns_of: Callable[[Any], Mapping[str, Any]]) -> None:
        """Raises TypeError for a topic of payloads that have no status: of these nobody could say that one is gone."""
        self.topic = next(topic for topic in TOPICS if topic.name == name)
        if not all("status" in payload.model_fields for payload in self.topic.payloads):
            raise TypeError(f"{name} does not tell the status of its objects")
        self._table: Any = table
        self._columns_of = columns_of

    @property
    def name(self) -> str:
        return self.topic.name

    @property
    def consumer(self) -> WorkConsumer:
        """What keeps the copy up to date."""
        return WorkConsumer(
            name=self.name, topic=self.topic, handle=self.apply, has_inbox=False, unreadable=self.withhold
        )

    async def apply(self, work: AsyncSession, envelope: Envelope[Any]) -> None:
        """Take a state over, unless what is here is newer. The unit of work is of its company. Raises ParkError."""
        revision = (envelope.epoch, envelope.version)
        if not is_believable(*revision):
            # It would hold the row for ever against everything its owner writes later.
            raise ParkError("an epoch or a version that nobody can have counted up to")
        subject = parsed_key(envelope.aggregate_id)
        status = str(envelope.data.status)
        if status == _UNKNOWN:
            await self._put(work, subject, _WITHHELD, revision, {})
        else:
            own = self._columns_of(envelope.data)
            await self._put(work, subject, _UNDERSTOOD, revision, {"status": status, **own})

    async def withhold(self, work: AsyncSession, key: bytes | None, value: bytes | None) -> None:
        """Note that there is a state which cannot be read, where the record says of whom and of which revision.

        One that does not was not written by the owner, who publishes the right state above it (decision 0013).
        """
        subject, revision = _subject_of(key), revision_of(value)
        if subject is None or min(revision) < 1 or not is_believable(*revision):
            return
        await enter_company(work, subject[0])
        await self._put(work, subject, _WITHHELD, revision, {})

    async def _put(
        self,
        work: AsyncSession,
        subject: _Subject,
        kind: tuple[str, str],
        revision: _Revision,
        columns: Mapping[str, Any],
    ) -> None:
        table, told = self._table, {**dict(zip(kind, revision, strict=True)), **columns}
        row = insert(table).values(company_id=subject[0], id=subject[1], **told)
        given, here = (tuple_(*(getattr(each, name) for name in kind)) for each in (row.excluded, table))
        await work.execute(
            row.on_conflict_do_update(
                index_elements=[table.company_id, table.id],
                set_={name: getattr(row.excluded, name) for name in told},
                # Also one that is as new: with it a replay fills columns that are newer than the row.
                where=given >= here,
            )
        )

    async def replay(self, database: Database, kafka: Kafka) -> Replayed:
        """Fill the copy again from the beginning of its topic, while it serves and is followed.

        Nothing is ever replaced by what is older, so it may be ended at any moment, run again, and twice at once. In
        the end each state the log had when this began is here, or a newer one, and no row that was here is without a
        record in the log which is as new. Raises LogUnavailableError or DatabaseUnavailableError.
        """
        unseen = await self._revisions(database)
        replayed = await _Reading(self, database, unseen).read(kafka)
        replayed.removed = await self._remove(database, unseen)
        if replayed.removed:
            # Of some of these the log tells what is older than what was here.
            await _Reading(self, database, {}).read(kafka)
        return replayed

    async def _revisions(self, database: Database) -> dict[_Subject, _Revisions]:
        table = self._table
        found: dict[_Subject, _Revisions] = {}
        async for company_id in every_company(database):
            async with database.unit_of_work(company_id=company_id) as work:
                columns = (getattr(table, name) for name in (*_UNDERSTOOD, *_WITHHELD))
                rows = await work.execute(select(table.id, *columns).where(table.company_id == company_id))
                found |= {(company_id, row[0]): (row[1], row[2], row[3], row[4]) for row in rows}
        return found

    async def _remove(self, database: Database, unseen: Mapping[_Subject, _Revisions]) -> int:
        table, count = self._table, 0
        here = tuple_(*(getattr(table, name) for name in (*_UNDERSTOOD, *_WITHHELD)))
        for (company_id, row_id), revisions in unseen.items():
            # What was told of it meanwhile stays.
            ours = delete(table).where(table.company_id == company_id, table.id == row_id, here == tuple_(*revisions))
            async with database.unit_of_work(company_id=company_id) as work:
                count += len((await work.execute(ours.returning(table.id))).all())
        return count


@dataclass
class _Reading:
    """One reading of a topic, from its beginning to where it ends then.

    :ivar unseen: rows of which no record was read that is as new; each is taken out when one is.
    """

    projection: Projection
    database: Database
    unseen: dict[_Subject, _Revisions]
    _replayed: Replayed = field(default_factory=Replayed)
    _chunk: list[Any] = field(default_factory=list)

    async def read(self, kafka: Kafka) -> Replayed:
        await read_through(kafka, (self.projection.topic,), self._visit)
        await self._apply_chunk()
        return self._replayed

    async def _visit(self, _: tuple[str, int], record: Any) -> None:
        self._chunk.append(record)
        if len(self._chunk) >= _CHUNK_RECORDS:
            await self._apply_chunk()

    async def _apply_chunk(self) -> None:
        # Rows are locked in one order, so that two replays do not wait for each other; those of one key stay in theirs.
        chunk, self._chunk = sorted(self._chunk, key=lambda record: record.key or b""), []
        async with self.database.unit_of_work() as work:
            for record in chunk:
                if not is_filler(record.key, record.value):
                    await self._take(work, record)

    async def _take(self, work: AsyncSession, record: Any) -> None:
        try:
            envelope = event_of(self.projection.topic, record.key, record.value)
            await enter_company(work, envelope.company_id)
            await self.projection.apply(work, envelope)
        except ParkError:
            self._replayed.unreadable += 1
            await self.projection.withhold(work, record.key, record.value)
            # That it cannot be read does not say that it is gone.
            if (subject := _subject_of(record.key)) is not None:
                self.unseen.pop(subject, None)
            return
        self._replayed.applied += 1
        subject = parsed_key(envelope.aggregate_id)
        here = self.unseen.get(subject)
        if here is not None and (envelope.epoch, envelope.version) >= max(here[:2], here[2:]):
            del self.unseen[subject]


def _subject_of(key: bytes | None) -> _Subject | None:
    try:
        return parsed_key((key or b"").decode("ascii"))
    except ValueError:
        return None
