"""What the rules forbid, PostgreSQL does not take either."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from contracts.identifiers import CompanyId, new_id
from infra.postgres.database import Database
from services.promoter.artists.tables import Artist
from services.promoter.events.tables import Event
from tests.harness.modules import RunningModule

COMPANY = CompanyId(new_id())
NOW = datetime(2026, 5, 21, tzinfo=UTC)
KNOWN: dict[str, Any] = {"company_id": COMPANY, "version": 1, "created_by": new_id(), "created_at": NOW}
EVENT: dict[str, Any] = {
    **KNOWN,
    "state": "settled",
    "title": "Night",
    "starts_at": NOW,
    "ends_at": NOW + timedelta(hours=1),
    "time_zone": "UTC",
    "venue_text": "Hall",
    "currency": "EUR",
}
ARTIST: dict[str, Any] = {**KNOWN, "stage_name": "The Night Ferries"}


@pytest_asyncio.fixture(loop_scope="session")
async def database(promoter: RunningModule) -> AsyncIterator[Database]:
    opened = Database(promoter.database_url, application_name="test")
    yield opened
    await opened.close()


async def put(database: Database, table: Any, row: dict[str, Any]) -> None:
    async with database.unit_of_work(company_id=COMPANY) as work:
        await work.execute(insert(table).values(id=new_id(), **row))


@pytest.mark.parametrize(
    ("changed", "constraint"),
    [
        ({"state": "over"}, "state_is_known"),
        ({"version": 0}, "version_is_positive"),
        ({"title": ""}, "title_length"),
        ({"venue_text": ""}, "venue_text_length"),
        ({"ends_at": None, "state": "draft"}, "times_are_whole"),
        ({"ends_at": NOW}, "ends_after_it_starts"),
        ({"time_zone": None}, "date_has_a_zone"),
        ({"currency": "eur"}, "currency_is_a_code"),
        ({"currency": None}, "is_complete_once_confirmed"),
        ({"venue_text": None}, "is_complete_once_confirmed"),
        ({"starts_at": None, "ends_at": None}, "is_complete_once_confirmed"),
    ],
)
async def test_an_event_that_cannot_be_is_no_row(database: Database, changed: dict[str, Any], constraint: str) -> None:
    with pytest.raises(DBAPIError, match=f"events_{constraint}"):
        await put(database, Event, {**EVENT, **changed})


@pytest.mark.parametrize(
    ("changed", "constraint"),
    [({"stage_name": ""}, "stage_name_length"), ({"genre": ""}, "genre_length"), ({"country": "no"}, "country_is_a")],
)
async def test_an_artist_that_cannot_be_is_no_row(database: Database, changed: dict[str, Any], constraint: str) -> None:
    with pytest.raises(DBAPIError, match=f"artists_{constraint}"):
        await put(database, Artist, {**ARTIST, **changed})


async def test_what_can_be_is(database: Database) -> None:
    await put(database, Event, EVENT)
    await put(database, Artist, ARTIST)
