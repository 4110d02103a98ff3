"""How a list is paged, sorted and scoped: in SQL, by one `Listing` per resource, with a cursor that skips no row.

A page begins behind the last row of the page before, by the sorted value and the id together, so what is added or taken
away meanwhile neither repeats a row nor hides one. Filters are typed query parameters of the route; the operation turns
them into conditions.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from access.scopes import ScopeFilter
from chassis.request import UnitsOfWork
from contracts.errors import DomainError, Kind
from contracts.identifiers import CompanyId
from contracts.payload import INTEGER_MAX
from contracts.problems import ProblemCode

LIMIT_MAX: Final = 200
_LIMIT_DEFAULT: Final = 50
_CURSOR_LENGTH_MAX: Final = 2048
_WALKED_ROWS: Final = 1000

Row = TypeVar("Row")


class CursorInvalidError(DomainError):
    """A cursor is taken as it was given, with the sort it was given for, or not at all."""

    kind = Kind.INVALID
    code = ProblemCode.CURSOR_INVALID.value
    title = "This cursor is not one this list has given"
    pointer = "?cursor"


class SortUnknownError(DomainError):
    kind = Kind.INVALID
    code = ProblemCode.SORT_UNKNOWN.value
    title = "The list cannot be sorted like this"
    pointer = "?sort"


@dataclass(frozen=True)
class PageRequest:
    """Which page is asked for. `sort` is a name of the list's, with a hyphen before it to begin at the largest."""

    cursor: str | None = None
    limit: int = _LIMIT_DEFAULT
    sort: str | None = None


@dataclass(frozen=True)
class Page(Generic[Row]):
    """`next` is the cursor of the page behind this one; none on the last."""

    rows: Sequence[Row]
    next: str | None


async def _asked(
    cursor: Annotated[str | None, Query(max_length=_CURSOR_LENGTH_MAX)] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = _LIMIT_DEFAULT,
    sort: Annotated[str | None, Query(max_length=64)] = None,
) -> PageRequest:
    return PageRequest(cursor, limit, sort)


#: The page a request asks for.
Paged = Annotated[PageRequest, Depends(_asked)]


class Listing(Generic[Row]):
    """How the rows of one fenced table are listed.

    :param row: the model, with a `company_id` and an `id`.
    :param sorts: the expression behind each name a caller may sort by; none of them is ever null.
    :param default: the sort where none is asked for.
    :param scopes: the column that holds an object's value, for each scope type that bounds who reads it.
    """

    def __init__(
        self, row: type[Row], *, sorts: Mapping[str, Any], default: str, scopes: Mapping[str, Any] | None = None
    ) -> None:
        self._row: Any = row
        self._sorts = sorts
        self._default = default
        self._scopes = scopes or {}

    async def page(
        self,
        work: AsyncSession,
        asked: PageRequest,
        *,
        company_id: CompanyId,
        scope: ScopeFilter | None,
        where: Iterable[ColumnElement[bool]] = (),
    ) -> Page[Row]:
        """The company's rows that the caller's scopes reach and all conditions hold for.

        `scope` is None only for rows that lie in no scope. Raises SortUnknownError or CursorInvalidError.
        """
        sort = asked.sort or self._default
        key, descending = self._sorted_by(sort)
        place = tuple_(key, self._row.id)
        rows = select(self._row, key.label("sorted_by")).where(*self.within(company_id, scope), *where)
        if asked.cursor is not None:
            behind = _read_cursor(asked.cursor, sort, key.type.python_type)
            rows = rows.where(place < behind if descending else place > behind)
        rows = rows.order_by(*(each.desc() if descending else each.asc() for each in (key, self._row.id)))
        found = (await work.execute(rows.limit(asked.limit + 1))).all()
        page = found[: asked.limit]
        last = None if len(found) <= asked.limit else _cursor(sort, page[-1][1], page[-1][0].id)
        return Page([row for row, _ in page], last)

    def _sorted_by(self, sort: str) -> tuple[Any, bool]:
        name = sort.removeprefix("-")
        if name not in self._sorts:
            known = ", ".join(self._sorts)
            raise SortUnknownError(f"Sort by one of {known}; with a hyphen before it the largest comes first.")
        return self._sorts[name], sort.startswith("-")

    async def walk(
        self,
        begin: UnitsOfWork,
        *,
        company_id: CompanyId,
        scope: ScopeFilter | None,
        where: Iterable[ColumnElement[bool]] = (),
    ) -> AsyncIterator[Row]:
        """Every row of the list in its default order, however many: for what is given out as a whole.

        A page at a time is read and in memory, each in a unit of work of its own, so whoever takes the rows slowly
        holds no transaction open. What is added or taken away meanwhile is there or not; no row is there twice.
        """
        conditions = list(where)
        cursor: str | None = None
        while True:
            asked = PageRequest(cursor=cursor, limit=_WALKED_ROWS)
            async with begin() as work:
                page = await self.page(work, asked, company_id=company_id, scope=scope, where=conditions)
            for row in page.rows:
                yield row
            if page.next is None:
                return
            cursor = page.next

    def within(self, company_id: CompanyId, scope: ScopeFilter | None) -> list[ColumnElement[bool]]:
        """The conditions of the company's rows that the scopes reach: for a page, and for sums of the same rows."""
        conditions: list[ColumnElement[bool]] = [self._row.company_id == company_id]
        if scope is None:
            if self._scopes:
                raise RuntimeError(f"{self._row.__tablename__} is listed without the scopes that bound it")
            return conditions
        for scope_type in scope.allowed:
            ids = scope.uuids(scope_type)
            if ids != "*":
                # A type no column stands for is one no row has a value of: nothing is inside.
                conditions.append(self._scopes[scope_type].in_(ids))
        return conditions


def asked_for(wanted: Any, conditions: Mapping[str, Callable[[Any], ColumnElement[bool]]]) -> list[ColumnElement[bool]]:
    """The conditions of a filter, by the names of its fields; of None, which asks for all, there is none."""
    values = ((condition, getattr(wanted, name)) for name, condition in conditions.items())
    return [condition(value) for condition, value in values if value is not None]


def _cursor(sort: str, value: Any, row_id: UUID) -> str:
    text = json.dumps([sort, _written(value), str(row_id)], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _written(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _read_cursor(cursor: str, sort: str, kind: type) -> tuple[Any, UUID]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        given_for, value, row_id = json.loads(raw)
        if given_for != sort:
            raise ValueError("another sort")  # noqa: TRY301 - one answer to whatever is wrong with a cursor
        return _read_value(value, kind), UUID(row_id)
    # Recursion: a text of brackets is JSON too.
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise CursorInvalidError(
            "Send the `next` of the page before, unchanged, and the sort it was asked with, or begin without one."
        ) from None


def _read_value(value: Any, kind: type) -> Any:
    """The value of a sorted expression, as PostgreSQL takes it. Raises ValueError or TypeError."""
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INTEGER_MAX:
            raise ValueError(value)
        return value
    if not isinstance(value, str) or "\0" in value:
        raise TypeError(value)
    if kind is datetime:
        instant = datetime.fromisoformat(value)
        if instant.utcoffset() != timedelta(0):
            raise ValueError(value)
        return instant
    if kind is date:
        return date.fromisoformat(value)
    if kind is UUID:
        return UUID(value)
    # A lone surrogate is text to JSON and none to PostgreSQL.
    value.encode()
    return value
