"""Says whether what a reader answered may be, knowing only what the owners had committed and when.

*Over-grant*: a yes although the sources said no during the whole window before it. *Under-grant*: a no although they
said yes during the whole window. That nothing is known is neither. The window is the bound of the answer; expiry is
judged by clocks and not by events, so it has a shorter one: how far clocks may differ.

Each row is bound for itself. Auth and Core do not know of each other, so a reader may hold the newest state of the one
and one of the other that is as old as the window, which never were at the same moment: that is no violation. A refusal
that stood in one row for longer than the window must bind, whatever the others said.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import product
from typing import Final

from access.decision import Decision, Requirement
from access.freshness import Bounds
from access.path import AccessPath
from access.unknown import StateUnknownError
from contracts.identifiers import CompanyId, UserId
from contracts.problems import Reason
from tests.simulation.plan import SUBJECTS
from tests.simulation.subjects import (
    APPROVE,
    EVENT,
    GENERATIONS,
    KID,
    MODULE,
    PEOPLE,
    READ,
    SESSION,
    UNITS,
    WRITE,
    member_of,
)
from tests.simulation.truth import Row, ScopeValues, Truth

#: A row by its topic and key.
Subject = tuple[str, str]
Answer = bool | None

_MEMBERSHIPS: Final = "auth.memberships.v1"
_COMPANIES: Final = "entitlements.companies.v1"
_PERMISSIONS: Final = "auth.permissions.v1"
_SESSIONS: Final = "auth.sessions.v1"
_SIGNING_KEYS: Final = "auth.signing-keys.v1"


@dataclass(frozen=True)
class Question:
    """Something asked of readers, and how the rows answer it. `ask` answers None where nothing is known."""

    name: str
    subjects: tuple[Subject, ...]
    reading: bool
    ask: Callable[[AccessPath], Answer]
    so: Callable[[Truth, datetime], bool]


@dataclass(frozen=True)
class Violation:
    """What must not be."""

    kind: str
    at_seconds: float
    where: str
    what: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.kind} at {self.at_seconds:.3f} s in {self.where}: {self.what}"


class Oracle:
    """Keeps what the rows said at every moment, and judges answers by it.

    :param wall: the sources' wall clock at a moment of the history, which is in seconds of true time.
    """

    def __init__(self, bounds: Bounds, wall: Callable[[float], datetime]) -> None:
        self._bounds = bounds
        self._wall = wall
        self._rows: dict[Subject, tuple[list[float], list[Row | None]]] = {}
        #: The newest rows, as every question with these subjects finds them, until the next commit.
        self._newest: dict[tuple[Subject, ...], Truth] = {}

    def note(self, subject: Subject, row: Row | None, at_seconds: float) -> None:
        """A commit. None is a row that says what no reader of today understands."""
        times, rows = self._rows.setdefault(subject, ([], []))
        times.append(at_seconds)
        rows.append(row)
        self._newest.clear()

    def judge(
        self, question: Question, answer: Answer, at_seconds: float, where: str, *, clocks_differ_seconds: float
    ) -> Violation | None:
        """What is wrong with an answer; None where nothing is.

        `clocks_differ_seconds` is how far the reader's wall clock is behind that of the sources, or ahead of it.
        """
        if answer is None or answer == question.so(self._newest_of(question.subjects), self._wall(at_seconds)):
            return None
        bound = self._bounds.hard_reading_seconds if question.reading else self._bounds.hard_seconds
        # A reader behind the sources takes for new what is as old as their clocks differ.
        since = at_seconds - bound - clocks_differ_seconds
        # What a reader holds may be as old as the window; it judges it by its own clock, now. Past the bound between
        # clocks it must not say yes at all.
        differ = timedelta(seconds=clocks_differ_seconds)
        now = self._wall(at_seconds) + (
            -min(differ, timedelta(seconds=self._bounds.skew_seconds)) if answer else differ
        )
        held = (self._within(subject, since) for subject in question.subjects)
        if any(answer == question.so(_truth_of(rows), now) for rows in product(*held)):
            return None
        return Violation("over-grant" if answer else "under-grant", at_seconds, where, question.name)

    def _newest_of(self, subjects: tuple[Subject, ...]) -> Truth:
        known = self._newest.get(subjects)
        if known is None:
            known = self._newest[subjects] = _truth_of(
                self._rows[subject][1][-1] if subject in self._rows else None for subject in subjects
            )
        return known

    def _within(self, subject: Subject, since: float) -> list[Row | None]:
        """What a subject's row said at any moment since then; None where it was not there, or not to be understood."""
        times, rows = self._rows.get(subject, ([], []))
        place = bisect_right(times, since)
        return [*(rows[place - 1 : place] or [None]), *rows[place:]]


def _truth_of(rows: Iterable[Row | None]) -> Truth:
    return Truth(row for row in rows if row is not None)


def _answer_of(decision: Decision) -> Answer:
    return None if decision.reason is Reason.STATE_UNKNOWN else decision.allowed


@cache
def questions() -> tuple[Question, ...]:
    """What every reader is asked again and again."""
    found: list[Question] = []
    for number in range(SUBJECTS["membership"][1]):
        company, user = member_of(number)
        found += [
            _permission(company, user, READ, None, reading=True),
            _permission(company, user, READ, {"business_unit": UNITS[1], "event": EVENT}, reading=False),
            _permission(company, user, WRITE, {"business_unit": UNITS[0], "event": EVENT}, reading=False),
            _permission(
                company,
                user,
                APPROVE,
                {"business_unit": UNITS[1], "event": EVENT, "approval_limit": "USD:400000"},
                reading=False,
            ),
            _administration(company, user),
        ]
    for user in PEOPLE:
        found += [_token(user, generation) for generation in GENERATIONS]
    return tuple(found)


def _permission(company: CompanyId, user: UserId, key: str, values: ScopeValues | None, *, reading: bool) -> Question:
    requirement = Requirement.of(key)
    return Question(
        f"{user} in {company}: {key} of {'any' if values is None else values}",
        ((_MEMBERSHIPS, f"{company}/{user}"), (_COMPANIES, str(company)), (_PERMISSIONS, MODULE)),
        reading,
        lambda path: _answer_of(path.decide(company, user, requirement, reading=reading, values=values)),
        lambda truth, now: truth.answer(company, user, key, values, now) is None,
    )


def _administration(company: CompanyId, user: UserId) -> Question:
    return Question(
        f"{user} administers {company}",
        ((_MEMBERSHIPS, f"{company}/{user}"),),
        False,
        lambda path: _answer_of(path.decide_company_admin(company, user)),
        lambda truth, _: truth.answer_company_admin(company, user) is None,
    )


def _token(user: UserId, generation: int) -> Question:
    """Step one of the chain: the key of a token, then its session."""
    return Question(
        f"a token of {user}, generation {generation}",
        ((_SIGNING_KEYS, KID), (_SESSIONS, str(user))),
        True,
        lambda path: _known(
            lambda: path.signing_key(KID) is not None and path.session_is_live(user, SESSION, generation)
        ),
        lambda truth, now: truth.key_verifies(KID, now) and truth.session_is_live(user, SESSION, generation),
    )


def _known(ask: Callable[[], bool]) -> Answer:
    try:
        return ask()
    except StateUnknownError:
        return None
