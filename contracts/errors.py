"""What a rule of the domain says no with. It knows nothing of HTTP or Kafka: the chassis turns kinds into answers."""

import re
from enum import StrEnum
from typing import Any, ClassVar


class Kind(StrEnum):
    """What a refusal means to the one who asked; the chassis maps each kind to one status."""

    #: What the chain reads of a request before its body cannot be read.
    MALFORMED = "malformed"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    PRECONDITION_FAILED = "precondition_failed"
    PRECONDITION_REQUIRED = "precondition_required"
    REFUSED = "refused"
    UNAUTHENTICATED = "unauthenticated"
    TOO_MANY = "too_many"
    UNAVAILABLE = "unavailable"


class DomainError(Exception):
    """A fact about why something did not happen, named by its class and carrying its data.

    Subclasses set `kind`, `code` (a stable slug that clients may compare) and `title` (one line, the same for every
    occurrence). `detail` says what happened this time; `facts` are its values, safe to show to the one who asked.
    """

    kind: ClassVar[Kind]
    code: ClassVar[str]
    title: ClassVar[str]
    #: The value of the request that was refused, as a JSON pointer (RFC 6901).
    pointer: ClassVar[str | None] = None
    #: What was written before the refusal stands: it must leave a trace, as a failed sign-in does.
    remembered: ClassVar[bool] = False
    #: When asking again may help.
    retry_after_seconds: int | None = None

    def __init__(self, detail: str | None = None, **facts: Any) -> None:
        """Without a detail the title stands for it."""
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.facts = facts

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class that a client could not tell apart."""
        super().__init_subclass__(**kwargs)
        absent = [name for name in ("kind", "code", "title") if not hasattr(cls, name)]
        if absent:
            raise TypeError(f"{cls.__name__} does not say its {', '.join(absent)}")
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", cls.code):
            raise TypeError(f"{cls.__name__}: {cls.code!r} is not a slug")
