from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query, Response
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.idempotency import Repeatable
from chassis.paging import Paged
from chassis.preconditions import IfMatch, set_entity_tag
from chassis.request import Access, Now, Work
from chassis.routing import ChangesModel, PlainText, RequestModel, ResponseModel, problem_statuses, router
from middleware.guards import NoScope, Permission, guard
from services.promoter.artists import operations
from services.promoter.artists.rules import ArtistDetails
from services.promoter.artists.tables import Artist
from services.promoter.manifest import MANIFEST

artists = router(prefix=MANIFEST.route_group, tag="artists")

_UNSCOPED: Final = NoScope("artists are reference data of the whole company")
#: The catalog has no key for writing artists: who changes events keeps the list of who can play at them.
_WRITE: Final = Permission("promoter.events.update", _UNSCOPED)
_READ: Final = Permission("promoter.artists.read", _UNSCOPED)

Name = Annotated[str, Field(min_length=1, max_length=200)]


class NewArtist(RequestModel):
    """Only what is public: no legal name, no address. `country` is ISO 3166-1 alpha-2."""

    stage_name: Name
    genre: Name | None = None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None


class ArtistChanges(ChangesModel, NewArtist):
    """Only what is to be different; null takes a value away."""


class ArtistBody(ResponseModel):
    id: UUID
    stage_name: str
    genre: str | None
    country: str | None
    version: int
    created_by: UUID
    created_at: datetime


class ArtistPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    artists: list[ArtistBody]
    next: str | None = None


@artists.post("/artists", status_code=201)
@guard(_WRITE)
async def create_artist(
    body: NewArtist, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> ArtistBody:
    """Add an artist to those the company works with."""
    details = ArtistDetails(**body.model_dump())

    async def create() -> ArtistBody:
        return ArtistBody.model_validate(await operations.create(work, access, details, now=now))

    made = await once.answer(ArtistBody, create, scope=None)
    set_entity_tag(response, made.version)
    return made


@artists.get("/artists")
@guard(_READ)
async def list_artists(
    access: Access,
    work: Work,
    asked: Paged,
    stage_name_prefix: Annotated[PlainText | None, Query(max_length=200)] = None,
) -> ArtistPage:
    """The company's artists, sorted by stage_name or created."""
    page = await operations.page(work, access.company_id, asked, stage_name_prefix=stage_name_prefix)
    return ArtistPage(artists=[ArtistBody.model_validate(each) for each in page.rows], next=page.next)


@artists.get("/artists/{artist_id}", responses=problem_statuses(404))
@guard(_READ)
async def read_artist(artist_id: UUID, access: Access, work: Work, response: Response) -> ArtistBody:
    """One artist."""
    return _shown(await operations.ARTISTS.one(work, access, artist_id), response)


@artists.get("/artists/{artist_id}/history", responses=problem_statuses(404))
@guard(_READ)
async def read_artist_history(artist_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What happened to one artist's row, the newest first."""
    artist = await operations.ARTISTS.one(work, access, artist_id)
    return await history(work, asked, access.company_id, artist.id)


@artists.patch("/artists/{artist_id}", responses=problem_statuses(404, 412, 428))
@guard(_WRITE)
async def edit_artist(
    artist_id: UUID, body: ArtistChanges, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> ArtistBody:
    """Change what is known of an artist."""
    return _shown(await operations.edit(work, access, artist_id, body.said(), expected=expected, now=now), response)


def _shown(artist: Artist, response: Response) -> ArtistBody:
    set_entity_tag(response, artist.version)
    return ArtistBody.model_validate(artist)
