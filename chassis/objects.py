"""How an object is found, locked for a change, and written: one `Objects` per resource, in its operations.

Whoever asks for another company's object is told what they would be told of one that does not exist, and an object out
of the caller's scopes is refused before anything is said of it. A change is made under the row's lock, for the version
the caller has seen, and leaves a version more and an entry of the audit trail.

Rules take no rows but values: dataclasses whose fields are called as attributes of the row are.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from access.scopes import ScopeValue
from chassis.audit import Snapshot, record
from chassis.preconditions import Expected
from contracts.errors import DomainError
from middleware.context import AccessContext

Row = TypeVar("Row")
Value = TypeVar("Value")


class Objects(Generic[Row]):
    """The rows of one fenced table, each of them an object.

    :param row: the model, with an `id`, a `company_id` and a `version`.
    :param unknown: what is raised for one there is not.
    :param scope_of: by what an object is judged; None for objects that lie in no scope, as their routes name.
    """

    def __init__(
        self,
        row: type[Row],
        *,
        unknown: Callable[[], DomainError],
        scope_of: Callable[[Row], Mapping[str, ScopeValue]] | None = None,
    ) -> None:
        self._row: Any = row
        self._unknown = unknown
        self._scope_of = scope_of

    async def one(self, work: AsyncSession, access: AccessContext, object_id: UUID) -> Row:
        """Raises what `unknown` makes, for another company's too, or OutOfScopeError."""
        return self._judged(access, await work.get(self._row, object_id))

    async def locked(self, work: AsyncSession, access: AccessContext, object_id: UUID, expected: Expected) -> Row:
        """One that nobody else changes until the transaction ends. Raises as `one`, and VersionMismatchError."""
        # Where it was read before its lock was there, it is read again.
        found = self._judged(access, await work.get(self._row, object_id, with_for_update=True, populate_existing=True))
        expected.check(found.version)  # type: ignore[attr-defined]  # as the class asks of its rows
        return found

    def write(
        self,
        work: AsyncSession,
        access: AccessContext,
        row: Row,
        action: str,
        *,
        now: datetime,
        before: Snapshot | None = None,
    ) -> Row:
        """What belongs to every write: a version more, and an audit entry. `before` is what the row said, if it was."""
        row.version += 1  # type: ignore[attr-defined]  # the same
        record(work, row, action, actor=access.user_id, now=now, before=before)
        return row

    def _judged(self, access: AccessContext, found: Any) -> Row:
        if found is None or found.company_id != access.company_id:
            raise self._unknown()
        if self._scope_of is not None:
            access.require_scope(self._scope_of(found))
        row: Row = found
        return row


def value_of(kind: type[Value], row: Any, /, **made: Any) -> Value:
    """What a row says, as its rules take it: what is `made` of it, as a state is of its text, and all else as it is."""
    names = (field.name for field in fields(kind) if field.name not in made)  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: getattr(row, name) for name in names}, **made)


def values_of(value: Any) -> dict[str, Any]:
    """A value's fields, for the row it becomes."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def set_values(row: Any, value: Any) -> None:
    """Have a row say what the value says."""
    for name, each in values_of(value).items():
        setattr(row, name, each)
