"""The artists of the promoter service."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from chassis.projections import Projected, Projection
from contracts.events.promoter import ArtistChanged
from services.finance.database import Base


class ProjectedArtist(Projected, Base):
    """An artist under the name that stands on posters."""

    __tablename__ = "projected_artists"

    stage_name: Mapped[str | None] = mapped_column(Text)


def _columns_of(artist: ArtistChanged) -> Mapping[str, Any]:
    return {"stage_name": artist.stage_name}


ARTISTS: Final = Projection("promoter.artists.v1", ProjectedArtist, columns_of=_columns_of)
