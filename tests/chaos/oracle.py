"""Says which answers may not be, knowing only what Auth was asked to write, when, and when it answered.

*Over-grant*: let in, though Auth's rows refused it for longer than the bound before the question was asked.
*Under-grant*: refused, though they allowed it for as long. That nothing is known (503) is neither. A write takes effect
somewhere between its sending and its answer; one without an answer may have, until Auth was asked what it holds.

Times are seconds of the monotonic clock.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Generic, TypeVar

State = TypeVar("State")
Subject = TypeVar("Subject")
Question = TypeVar("Question")


class Answer(Enum):
    """What a question came to."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    #: 503: nothing is said of the right.
    UNKNOWN = "unknown"
    #: The connection was refused or broke.
    NONE = "none"
    #: None of these; it is never right.
    WRONG = "wrong"


@dataclass
class Write(Generic[State]):
    """From when to when a write took effect. `answered` is infinite until it is known to have."""

    state: State
    sent: float
    answered: float = inf


class Timeline(Generic[State]):
    """All writes to one subject, in their order: the next is sent when it is known what became of the one before."""

    def __init__(self, state: State, at: float) -> None:
        self._writes = [Write(state, at, at)]

    @property
    def state(self) -> State:
        """What the last write left."""
        return self._writes[-1].state

    @property
    def writes(self) -> tuple[Write[State], ...]:
        return tuple(self._writes)

    def send(self, state: State, at: float) -> Write[State]:
        """Note a write before it is sent."""
        write = Write(state, at)
        self._writes.append(write)
        return write

    def drop(self, write: Write[State]) -> None:
        """Forget a write that turned out never to have taken effect."""
        self._writes.remove(write)

    def replace(self, state: State, sent: float, answered: float) -> None:
        """Note that the rows became this between two moments, whatever was written before: they were restored."""
        self._writes.append(Write(state, sent, answered))

    def spans(self) -> Iterator[tuple[State, float, float]]:
        """Each state, the newest first, with the first and the last moment at which it may have been the truth."""
        until = inf
        for write in reversed(self._writes):
            yield write.state, write.sent, until
            until = min(until, write.answered)

    def seconds_since(self, holds: Callable[[State], bool], begin: float, end: float) -> float:
        """How long before `begin` this may have held last; 0 where it may have until then or later, up to `end`."""
        # The newest comes first, and none before it lasted longer.
        last = next((until for state, sent, until in self.spans() if sent <= end and holds(state)), -inf)
        return max(0.0, begin - last)


@dataclass(frozen=True, slots=True)
class Asked(Generic[Subject, Question]):
    """A question and what it came to."""

    subject: Subject
    question: Question
    started: float
    ended: float
    answer: Answer
    #: What was answered, where it is worth telling.
    told: str = ""


@dataclass(frozen=True)
class Violation(Generic[Subject, Question]):
    """An answer that may not be. `seconds` is how long the rows had said otherwise; infinite is always."""

    asked: Asked[Subject, Question]
    seconds: float

    def __str__(self) -> str:
        """One line for a person."""
        asked = self.asked
        return (
            f"{asked.subject} {asked.question}: {asked.answer.value} at {asked.started:.3f}, "
            f"{self.seconds:.3f} s after the rows last said so {asked.told}"
        )


@dataclass
class Judgement(Generic[Subject, Question]):
    """What the oracle found."""

    over_grants: list[Violation[Subject, Question]] = field(default_factory=list)
    under_grants: list[Violation[Subject, Question]] = field(default_factory=list)
    wrong: list[Asked[Subject, Question]] = field(default_factory=list)
    #: The longest time after the answer to a revocation that somebody was still let in.
    longest_allow_seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        return not (self.over_grants or self.under_grants or self.wrong)


class Oracle(Generic[Subject, State, Question]):
    """Keeps every write and every answer, and judges them in the end, when it is known what became of each write."""

    def __init__(self, allows: Callable[[State, Question], bool], *, bound_seconds: float) -> None:
        self._allows = allows
        self._bound_seconds = bound_seconds
        self.timelines: dict[Subject, Timeline[State]] = {}
        self.asked: list[Asked[Subject, Question]] = []

    def judge(self) -> Judgement[Subject, Question]:
        """Every answer against what the rows may have said when it was given."""
        found = Judgement[Subject, Question]()
        for asked in self.asked:
            if asked.answer is Answer.WRONG:
                found.wrong.append(asked)
                continue
            if asked.answer not in {Answer.ALLOWED, Answer.REFUSED}:
                continue
            is_allowed = asked.answer is Answer.ALLOWED
            seconds = self.timelines[asked.subject].seconds_since(
                lambda state, asked=asked, said=is_allowed: self._allows(state, asked.question) is said,  # type: ignore[misc]
                asked.started,
                asked.ended,
            )
            if seconds > self._bound_seconds:
                violations = found.over_grants if is_allowed else found.under_grants
                violations.append(Violation(asked, seconds))
            elif is_allowed:
                found.longest_allow_seconds = max(found.longest_allow_seconds, seconds)
        return found

    def revocations(self) -> list[float]:
        """Seconds from the answer to each revocation to the first refusal, where the next write left time for one."""
        refused: dict[tuple[Subject, Question], list[Asked[Subject, Question]]] = {}
        for asked in self.asked:
            if asked.answer is Answer.REFUSED:
                refused.setdefault((asked.subject, asked.question), []).append(asked)
        found = []
        for (subject, question), answers in refused.items():
            answers.sort(key=lambda asked: asked.started)
            writes = self.timelines[subject].writes
            for before, write, after in zip(writes, writes[1:], [*writes[2:], None], strict=False):
                if not self._allows(before.state, question) or self._allows(write.state, question):
                    continue
                end = inf if after is None else after.sent
                first = next((asked for asked in answers if write.sent <= asked.started and asked.ended <= end), None)
                if first is not None and write.answered < inf:
                    found.append(max(0.0, first.ended - write.answered))
        return sorted(found)
