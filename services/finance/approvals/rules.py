"""Four eyes, and the limit an amount needs. Who holds which limit is a scope of the grant, set in Auth."""

from uuid import UUID

from contracts.errors import DomainError, Kind
from contracts.money import Money


class FourEyesError(DomainError):
    """No 403: those name what an administrator could give, and nobody can give a person a second pair of eyes."""

    kind = Kind.CONFLICT
    code = "four_eyes"
    title = "Somebody else has to decide this"


def check_four_eyes(decider: UUID, *involved: UUID | None) -> None:
    """Raises FourEyesError for who is one of those that asked for the decision."""
    if decider in involved:
        raise FourEyesError("Who created, changed or submitted it neither approves nor rejects it.")


def limit_needed(amount: Money) -> str:
    """The amount as a value of the scope type `approval_limit`: within a limit of its currency that is no lower."""
    return f"{amount.currency}:{amount.amount_minor}"
