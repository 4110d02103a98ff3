"""The one place that opens connections to PostgreSQL and the one place that commits."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol

import asyncpg
from sqlalchemy import Connection, event, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.sql import text

from contracts.errors import DomainError, Kind
from contracts.identifiers import CompanyId
from infra.postgres.row_security import COMPANY_SETTING

_CONNECT_TIMEOUT_SECONDS: Final = 2.0
#: Longer than the server's own limits below: it ends only what the server no longer answers.
_ANSWER_TIMEOUT_SECONDS: Final = 7.0
_POOL_WAIT_SECONDS: Final = 2.0
_SESSION_LIMITS: Final = {
    # A request waits for no lock and no query longer than its caller would.
    "statement_timeout": "5s",
    "lock_timeout": "4s",
    "idle_in_transaction_session_timeout": "15s",
}
#: A plan is made for the values at hand. One for all values, which PostgreSQL would go over to after five times, takes
#: the company of a million rows for one of a hundred and a state that is soon left for one most rows are in.
_PLANNING: Final = {"plan_cache_mode": "force_custom_plan"}
#: What says nothing of the request itself: the same request may well succeed a second later.
_PASSING: Final = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresConnectionError,
    asyncpg.QueryCanceledError,
    asyncpg.SerializationError,
)


class DatabaseUnavailableError(DomainError):
    """PostgreSQL is away, starting, or did not answer in time; nothing was committed."""

    kind = Kind.UNAVAILABLE
    code = "database_unavailable"
    title = "The database cannot be reached"


def _set_company(company_id: CompanyId, _session: Session, _transaction: Any, connection: Connection) -> None:
    """Until the transaction's end: a setting of the session would stay on the pooled connection for the next caller."""
    connection.execute(select(func.set_config(COMPANY_SETTING, str(company_id), True)))


async def at_one_moment(work: AsyncSession) -> None:
    """Have every statement of this unit of work see the rows as its first one does, whatever is committed meanwhile.

    For an answer that is read in several statements and writes nothing. Raises RuntimeError behind a first statement.
    """
    if work.in_transaction():
        raise RuntimeError("the moment of a unit of work is that of its first statement, and it has begun")
    await work.connection(execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})


class UnitsOfWork(Protocol):
    """Where transactions come from."""

    def unit_of_work(self) -> AbstractAsyncContextManager[AsyncSession]:
        """As `Database.unit_of_work`, of no company."""


class Database:
    """A service's own database, reached as its application role.

    :param url: `postgresql://role:password@host:port/database`; the driver is chosen here.
    """

    def __init__(self, url: str, *, application_name: str, connections_max: int = 10) -> None:
        self._url = url
        self._application_name = application_name
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=connections_max,
            max_overflow=0,
            pool_timeout=_POOL_WAIT_SECONDS,
        )
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    async def _connect(self) -> Any:
        try:
            return await asyncpg.connect(
                self._url,
                timeout=_CONNECT_TIMEOUT_SECONDS,
                command_timeout=_ANSWER_TIMEOUT_SECONDS,
                server_settings={"application_name": self._application_name, **_SESSION_LIMITS, **_PLANNING},
            )
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError) as error:
            raise DatabaseUnavailableError(type(error).__name__) from error

    @asynccontextmanager
    async def unit_of_work(self, *, company_id: CompanyId | None = None) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises.

        With a company, row-level security shows and takes that company's rows; without one, none of a fenced table.

        An error whose `remembered` is true is a refusal that must leave a trace (a failed sign-in): what was written
        before it is committed, and the error goes on.

        Raises DatabaseUnavailableError when PostgreSQL is away at any moment of it.
        """
        try:
            async with self._sessions() as session:
                if company_id is not None:
                    event.listen(session.sync_session, "after_begin", partial(_set_company, company_id))
                try:
                    yield session
                except DomainError as error:
                    if error.remembered:
                        await session.commit()
                    raise
                await session.commit()
        except PoolTimeoutError as error:
            raise DatabaseUnavailableError("every connection is in use") from error
        except DBAPIError as error:
            cause = error.orig.__cause__ if error.orig else None
            if error.connection_invalidated or isinstance(cause, _PASSING):
                raise DatabaseUnavailableError(type(cause).__name__) from error
            raise
        except TimeoutError as error:
            raise DatabaseUnavailableError("no answer") from error

    async def check(self) -> None:
        """Prove that a query can be answered now; raises DatabaseUnavailableError when it cannot."""
        async with self.unit_of_work() as session:
            await session.execute(text("select 1"))

    async def close(self) -> None:
        await self._engine.dispose()
