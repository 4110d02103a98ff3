"""A state machine as data: which moves there are, from which states each may be made, and where it leads.

It is a value, so that rules, which import nothing but contracts, can declare theirs.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from contracts.errors import DomainError, Kind
from contracts.problems import ProblemCode

State = TypeVar("State", bound=Hashable)


class IllegalMoveError(DomainError):
    """The object is in no state the move can be made from. Its facts are the state, the move, and those it allows."""

    kind = Kind.CONFLICT
    code = ProblemCode.ILLEGAL_MOVE.value
    title = "This cannot be done in the state it is in"


@dataclass(frozen=True)
class Move(Generic[State]):
    """`name` is what is done, as a route's last part says it: "put-on-sale"."""

    name: str
    sources: frozenset[State]
    target: State


class StateMachine(Generic[State]):
    """The moves of one kind of object."""

    def __init__(self, moves: Iterable[Move[State]]) -> None:
        """Raises ValueError for two moves of one name and for a move that nothing can make."""
        self.moves: dict[str, Move[State]] = {}
        for move in moves:
            if move.name in self.moves or not move.sources:
                raise ValueError(f"{move.name} is declared twice or has no state to be made from")
            self.moves[move.name] = move

    def move(self, state: State, name: str) -> State:
        """Where the move leads from this state. Raises IllegalMoveError, and KeyError for a move there is not."""
        found = self.moves[name]
        if state in found.sources:
            return found.target
        allowed = self.allowed(state)
        raise IllegalMoveError(
            f"{name} cannot be done in the state {state}; what can be done: {', '.join(allowed) or 'nothing'}.",
            state=str(state),
            move=name,
            allowed=allowed,
        )

    def allowed(self, state: State) -> tuple[str, ...]:
        """The moves that can be made from this state, in the order they were declared."""
        return tuple(name for name, move in self.moves.items() if state in move.sources)
