"""Who is asking: the verified content of an access token."""

from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from contracts.identifiers import UserId


@dataclass(frozen=True)
class Identity:
    """A person and the session they act in. Identity only: what they may do is never in a token (design §5)."""

    user_id: UserId
    session_id: UUID
    generation: int

    @cached_property
    def user_text(self) -> str:
        """The person's id as it is written. An identity is kept as long as its token is remembered."""
        return str(self.user_id)
