"""A POST that creates is carried out once per Idempotency-Key: who repeats it gets the answer the first one got.

The key is written first, in the transaction of its effect. One who comes with the same key at the same time waits for
that transaction, at its unique constraint, and then is given what it answered; had it failed, theirs is the first. So
an answer is stored exactly if its effect is. A refusal is not stored: nothing came of it, and it may be asked again.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Header, Request
from sqlalchemy import CheckConstraint, Index, LargeBinary, MetaData, Text, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime

from access.scopes import ScopeValue
from chassis.jobs import again_and_again
from chassis.request import Access, Now, Work, record_of
from chassis.routing import NEEDED_HEADER, ResponseModel
from contracts.errors import DomainError, Kind
from contracts.problems import ProblemCode
from infra.clock import Clock
from infra.postgres.companies import every_company, note_companies_of
from infra.postgres.database import Database
from infra.postgres.naming import NAMING_CONVENTION
from infra.postgres.row_security import isolate_by_company
from middleware.context import AccessContext

KEPT: Final = timedelta(hours=24)
KEY_LENGTH_MAX: Final = 255
_KEY: Final = re.compile(rf"[\x20-\x7e]{{1,{KEY_LENGTH_MAX}}}")
#: As the document tells it: spaces around a header's value are none of it.
_KEY_TOLD: Final = rf"^[\x21-\x7e]([\x20-\x7e]{{0,{KEY_LENGTH_MAX - 2}}}[\x21-\x7e])?$"
#: The header as dependencies take it; `check_key` refuses what is none.
KeyHeader = Annotated[str | None, Header(json_schema_extra={NEEDED_HEADER: True, "pattern": _KEY_TOLD})]
_FORGETTING_INTERVAL_SECONDS: Final = 600.0

Body = TypeVar("Body", bound=ResponseModel)


class IdempotencyKeyMissingError(DomainError):
    kind = Kind.MALFORMED
    code = ProblemCode.IDEMPOTENCY_KEY_MISSING.value
    title = "This needs an Idempotency-Key"


class IdempotencyKeyMalformedError(DomainError):
    kind = Kind.MALFORMED
    code = ProblemCode.IDEMPOTENCY_KEY_MALFORMED.value
    title = "This is not an Idempotency-Key"


class IdempotencyKeyReusedError(DomainError):
    kind = Kind.INVALID
    code = ProblemCode.IDEMPOTENCY_KEY_REUSED.value
    title = "This Idempotency-Key was used for another request"


class _Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class IdempotencyKey(_Base):
    """A key somebody sent, and the answer they got. Fenced by company."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        CheckConstraint(f"length(key) between 1 and {KEY_LENGTH_MAX}", name="key_length"),
        Index(None, "company_id", "created_at"),
    )

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    #: Method and path of the route, its parameters as names.
    route: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    #: The answer's body. None only inside the transaction that makes it.
    answer: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


_CREATE: Final = (
    """
    create table idempotency_keys (
        company_id uuid not null, user_id uuid not null, route text not null, key text not null,
        request_digest bytea not null, answer text, created_at timestamptz not null,
        primary key (company_id, user_id, route, key),
        constraint idempotency_keys_key_length check (length(key) between 1 and 255)
    )
    """,
    "create index idempotency_keys_company_id_created_at_index on idempotency_keys (company_id, created_at)",
)


def add_idempotency_table(metadata: MetaData) -> None:
    """Make the table part of a service's metadata."""
    _Base.metadata.tables["idempotency_keys"].to_metadata(metadata)


def create_idempotency_keys(op: Any) -> None:
    """Create the table in an Alembic version, after `create_companies`. What this creates never changes."""
    for statement in _CREATE:
        op.execute(statement)
    isolate_by_company(op, "idempotency_keys")
    note_companies_of(op, "idempotency_keys")


def drop_idempotency_keys(op: Any) -> None:
    """Undo `create_idempotency_keys`."""
    op.execute("drop table idempotency_keys")


@dataclass(frozen=True)
class Once:
    """One request that may be a repetition."""

    work: AsyncSession
    access: AccessContext
    now: datetime
    route: str
    key: str | None
    request_digest: bytes

    async def answer(
        self, body: type[Body], make: Callable[[], Awaitable[Body]], *, scope: Mapping[str, ScopeValue] | None
    ) -> Body:
        """What `make` answers, the first time; the same again for every repetition.

        `scope` are the values the request is judged by, None for a route that names that it has none: whoever no longer
        reaches them is not given the answer either. Raises OutOfScopeError, IdempotencyKeyMissingError,
        IdempotencyKeyMalformedError or IdempotencyKeyReusedError, and what `make` raises.
        """
        check_key(self.key)
        if scope is not None:
            self.access.require_scope(scope)
        while not await self._is_first():
            stored = (await self.work.scalars(select(IdempotencyKey).where(*self._own()))).one_or_none()
            # None where it has become old enough to be forgotten between the two statements: then this is the first.
            if stored is not None:
                return self._repeated(body, stored)
        made = await make()
        await self.work.execute(update(IdempotencyKey).where(*self._own()).values(answer=made.model_dump_json()))
        return made

    def _repeated(self, body: type[Body], stored: IdempotencyKey) -> Body:
        if stored.request_digest != self.request_digest or stored.answer is None:
            raise IdempotencyKeyReusedError("Its first request said something else. Take a new key for a new request.")
        return body.model_validate_json(stored.answer)

    async def _is_first(self) -> bool:
        noted = insert(IdempotencyKey).values(
            company_id=self.access.company_id,
            user_id=self.access.user_id,
            route=self.route,
            key=self.key,
            request_digest=self.request_digest,
            created_at=self.now,
        )
        row = await self.work.execute(noted.on_conflict_do_nothing().returning(IdempotencyKey.key))
        return row.first() is not None

    def _own(self) -> tuple[Any, ...]:
        return (
            IdempotencyKey.company_id == self.access.company_id,
            IdempotencyKey.user_id == self.access.user_id,
            IdempotencyKey.route == self.route,
            IdempotencyKey.key == self.key,
        )


def check_key(key: str | None) -> None:
    """Raises IdempotencyKeyMissingError or IdempotencyKeyMalformedError."""
    if key is None:
        raise IdempotencyKeyMissingError("Make up a key, such as a UUID, and send it again with every repetition.")
    if not _KEY.fullmatch(key):
        raise IdempotencyKeyMalformedError(f"A key is 1 to {KEY_LENGTH_MAX} printable ASCII characters.")


def once(
    request: Request, work: AsyncSession, access: AccessContext, now: datetime, *, key: str | None, body: bytes
) -> Once:
    """A request that may be a repetition; `body` tells two bodies apart, and is one or stands for one."""
    url = request.url
    said = f"{request.method} {url.path}?{url.query}\n".encode() + body
    route = f"{request.method} {record_of(request.scope).endpoint}"
    return Once(work, access, now, route, key, hashlib.sha256(said).digest())


async def _once(
    request: Request,
    work: Work,
    access: Access,
    now: Now,
    idempotency_key: KeyHeader = None,
) -> Once:
    return once(request, work, access, now, key=idempotency_key, body=await request.body())


#: The request, carried out once.
Repeatable = Annotated[Once, Depends(_once)]


async def forget_idempotency_keys(_: Mapping[type, Any], database: Database, clock: Clock) -> None:
    """A job: what was asked more than 24 h ago is forgotten."""

    async def pause() -> None:
        await asyncio.sleep(_FORGETTING_INTERVAL_SECONDS)

    await again_and_again("forget_idempotency_keys", lambda: forget_old_keys(database, clock()), pause)


async def forget_old_keys(database: Database, now: datetime) -> None:
    """Company by company, since row-level security shows one at a time."""
    async for company_id in every_company(database):
        async with database.unit_of_work(company_id=company_id) as work:
            await work.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - KEPT))
