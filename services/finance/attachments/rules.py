"""What may be attached, and what may be taken away again."""

from datetime import datetime
from typing import Final

from contracts.errors import DomainError, Kind

MEGABYTES_MAX: Final = 25
MEDIA_TYPES: Final = ("application/pdf", "image/jpeg", "image/png", "text/csv", "text/plain")
#: While nobody is asked to decide by it. What lies before somebody, and what an approval was given on, stays.
REMOVABLE_IN: Final = frozenset({"draft", "rejected"})


class AttachmentUnknownError(DomainError):
    """Also for another company's attachment and for one that was removed: the answers are equal."""

    kind = Kind.NOT_FOUND
    code = "attachment_unknown"
    title = "There is no such attachment"

    def __init__(self) -> None:
        super().__init__("This company has no attachment with this id.")


class AttachmentNeededError(DomainError):
    kind = Kind.CONFLICT
    code = "attachment_needed"
    title = "This attachment is part of a decision"


def check_there(removed_at: datetime | None) -> None:
    """Raises AttachmentUnknownError for one that was removed."""
    if removed_at is not None:
        raise AttachmentUnknownError


def check_removable(expense_state: str) -> None:
    """Raises AttachmentNeededError."""
    if expense_state not in REMOVABLE_IN:
        raise AttachmentNeededError(f"Its expense is {expense_state}: what it was decided by stays.")
