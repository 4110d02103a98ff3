from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.audit import Snapshot, snapshot
from chassis.objects import Objects, set_values, value_of, values_of
from chassis.paging import Listing, Page, PageRequest
from chassis.preconditions import Expected
from chassis.states import StateTopic
from contracts.events.promoter import ArtistChanged, ArtistStatus
from contracts.identifiers import CompanyId, new_id
from middleware.context import AccessContext
from services.promoter.artists import rules
from services.promoter.artists.rules import ArtistDetails
from services.promoter.artists.tables import Artist

LISTING: Final = Listing(
    Artist, sorts={"created": Artist.id, "stage_name": Artist.stage_name}, default="stage_name", scopes={}
)
ARTISTS: Final = Objects(Artist, unknown=rules.ArtistUnknownError)


async def create(work: AsyncSession, access: AccessContext, details: ArtistDetails, *, now: datetime) -> Artist:
    """Add an artist to those the company works with."""
    artist = Artist(
        id=new_id(),
        company_id=access.company_id,
        version=0,
        created_by=access.user_id,
        created_at=now,
        **values_of(details),
    )
    work.add(artist)
    return await _write(work, access, artist, "create", now=now)


async def edit(
    work: AsyncSession,
    access: AccessContext,
    artist_id: UUID,
    changes: Mapping[str, Any],
    *,
    expected: Expected,
    now: datetime,
) -> Artist:
    """Change what is known of an artist; `changes` are fields of ArtistDetails. What changes nothing leaves no trace.

    Raises ArtistUnknownError or VersionMismatchError.
    """
    artist = await ARTISTS.locked(work, access, artist_id, expected)
    known = value_of(ArtistDetails, artist)
    details = replace(known, **changes)
    if details == known:
        return artist
    before = snapshot(artist)
    set_values(artist, details)
    return await _write(work, access, artist, "edit", now=now, before=before)


async def page(
    work: AsyncSession, company_id: CompanyId, asked: PageRequest, *, stage_name_prefix: str | None
) -> Page[Artist]:
    """The company's artists. Raises SortUnknownError or CursorInvalidError."""
    begins = () if stage_name_prefix is None else (Artist.stage_name.istartswith(stage_name_prefix, autoescape=True),)
    return await LISTING.page(work, asked, company_id=company_id, scope=None, where=begins)


async def _write(
    work: AsyncSession,
    access: AccessContext,
    artist: Artist,
    action: str,
    *,
    now: datetime,
    before: Snapshot | None = None,
) -> Artist:
    """As every write, and published."""
    ARTISTS.write(work, access, artist, action, now=now, before=before)
    await ARTIST_STATES.publish(work, artist, actor=access.user_id, now=now)
    return artist


def _state(artist: Artist) -> ArtistChanged:
    return ArtistChanged(
        artist_id=artist.id,
        status=ArtistStatus.ACTIVE,
        stage_name=artist.stage_name,
        genre=artist.genre,
        country=artist.country,
    )


def _removed(artist_id: UUID) -> ArtistChanged:
    return ArtistChanged(artist_id=artist_id, status=ArtistStatus.REMOVED, stage_name=None, genre=None, country=None)


ARTIST_STATES: Final = StateTopic("promoter.artists.v1", Artist, state=_state, removed=_removed)
