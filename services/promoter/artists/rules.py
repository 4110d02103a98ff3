"""What is known of an artist."""

from dataclasses import dataclass

from contracts.errors import DomainError, Kind


class ArtistUnknownError(DomainError):
    """Also for another company's artist: the two answers are equal."""

    kind = Kind.NOT_FOUND
    code = "artist_unknown"
    title = "There is no such artist"

    def __init__(self) -> None:
        super().__init__("This company has no artist with this id.")


@dataclass(frozen=True, kw_only=True)
class ArtistDetails:
    """The stage name is public, as everything here is; `country` is ISO 3166-1 alpha-2."""

    stage_name: str
    genre: str | None = None
    country: str | None = None
