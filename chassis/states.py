"""How a module publishes the state of its objects: one `StateTopic` for each of its state topics.

The rows are fenced by company and the relay names none, so the key of a record is company and object, and whoever works
by keys enters the company of each. Operations publish under the row's lock, with the version they wrote.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from sqlalchemy import select

from contracts.identifiers import CompanyId, UserId
from contracts.payload import Payload
from contracts.topics import TOPICS
from infra.outbox.source import one_by_one
from infra.outbox.writer import Lane, Revision, next_version, publish_state
from infra.postgres.companies import companies_from, enter_company

_KEY: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_COMPANIES_PAGE_ROWS: Final = 100

Row = TypeVar("Row")


class StateTopic(Generic[Row]):
    """The rows of one fenced table, as a state topic tells of them; what a relay asks for (infra.outbox.source).

    :param name: the topic. The aggregate id of its payload is `<company_id>/<id>`.
    :param row: the model, with an `id`, a `company_id` and a `version`; its table is one that `note_companies_of` was
        called for, and its rows are never deleted.
    :param state: what is published of a row.
    :param removed: what is published of an object this database does not know. Ids are never used again, so no row of
        it can be written later.
    """

    def __init__(
        self, name: str, row: type[Row], *, state: Callable[[Row], Payload], removed: Callable[[UUID], Payload]
    ) -> None:
        self.topic = next(topic for topic in TOPICS if topic.name == name)
        self._row: Any = row
        self._state = state
        self._removed = removed

    async def publish(
        self, work: Any, row: Any, *, actor: UserId | None, now: datetime, lane: Lane = Lane.INTERACTIVE
    ) -> Revision:
        """Have the row's state published when the transaction commits."""
        return await publish_state(
            work,
            self.topic,
            self._state(row),
            company_id=CompanyId(row.company_id),
            version=row.version,
            occurred_at=now,
            actor_user_id=actor,
            lane=lane,
        )

    def is_key(self, key: str) -> bool:
        """Whether the text is a key, of an object there is or not."""
        return _KEY.fullmatch(key) is not None

    async def keys(self, work: Any, *, after: str | None, limit: int) -> list[str]:
        """The keys of rows, in order, from behind `after` on."""
        company, last = (None, None) if after is None else parsed_key(after)
        found: list[str] = []
        while True:
            companies = await companies_from(work, company, limit=_COMPANIES_PAGE_ROWS)
            for each in companies:
                await enter_company(work, each)
                ids = select(self._row.id).order_by(self._row.id).limit(limit - len(found))
                if each == company and last is not None:
                    ids = ids.where(self._row.id > last)
                found += [f"{each}/{row_id}" for row_id in await work.scalars(ids)]
                if len(found) == limit:
                    return found
            if len(companies) < _COMPANIES_PAGE_ROWS:
                return found
            # Its rows were all there are of it: the next page of companies begins behind them.
            company, last = companies[-1], _ID_MAX

    async def republish(
        self, work: Any, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        """Publish a row's state again; None for one there is not.

        Above a version the row gets a higher one and no entry of the audit trail: it says what it said.
        """
        if not self.is_key(key):
            return None
        company_id, row_id = parsed_key(key)
        await enter_company(work, company_id)
        row = await work.get(self._row, row_id, with_for_update=True, populate_existing=True)
        if row is None:
            return None
        row.version = next_version(row.version, above)
        return await self.publish(work, row, actor=None, now=now, lane=lane)

    async def republish_all(self, work: Any, keys: Sequence[str], *, now: datetime, lane: Lane) -> None:
        """`republish` each of a page of keys, under the versions they have."""
        await one_by_one(self.republish)(work, keys, now=now, lane=lane)

    async def withdraw(
        self, work: Any, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> Revision | None:
        """Publish that there is no such object."""
        company_id, row_id = parsed_key(key)
        return await publish_state(
            work,
            self.topic,
            self._removed(row_id),
            company_id=company_id,
            version=next_version(0, above),
            occurred_at=now,
            lane=lane,
        )


_ID_MAX: Final = UUID(int=2**128 - 1)


def parsed_key(key: str) -> tuple[CompanyId, UUID]:
    """The company and the object a key of a module's state topic names. Raises ValueError where it is no such key."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError("not a company and an object")
    return CompanyId(UUID(found[1])), UUID(found[2])
