"""The one answer where there is no state to judge by."""

from contracts.errors import DomainError, Kind
from contracts.problems import Fix, FixAction, FixBy

_RETRY_AFTER_SECONDS = 2


class StateUnknownError(DomainError):
    """Neither yes nor no can be said: 503, never 403 and never allowed (design §5 Staleness)."""

    kind = Kind.UNAVAILABLE
    code = "state_unknown"
    title = "Your access cannot be checked right now"

    module: str | None = None
    permission: str | None = None
    revision: str | None = None

    def __init__(self, because: str, *, age_seconds: float | None = None) -> None:
        """`because` says what is not known; it is shown to the caller, for the people who run the system."""
        super().__init__(
            f"Nothing was decided about your rights: {because}. Try again in a few seconds; if it lasts, "
            "tell the people who run Kisum."
        )
        self.because = because
        self.age_seconds = age_seconds
        self.fix = Fix(action=FixAction.RETRY, by=FixBy.CALLER)
        self.retry_after_seconds = _RETRY_AFTER_SECONDS
