"""Asks the access path and the truth the same questions, and shows where they differ.

    .venv/bin/python -m tests.simulation.differential --pairs 1000000 --seed 7

Each world is a set of drawn rows: encoded as their owners' events, decoded and applied as the feed does, in any order
and more than once, then changed and applied again beside what is old by then. At times around the ends that stand in
the rows the path decides and the truth answers; and what the cache holds is compared with the rows, document by
document. The same seed asks the same questions.
"""

import argparse
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

from access import digest
from access.cache import Head
from access.decision import Requirement
from access.freshness import OWNERS, Clocks, OwnerFreshness
from access.ingest import Ingest
from access.path import AccessPath
from contracts.envelope import encode, envelop
from contracts.identifiers import PLATFORM_COMPANY_ID
from contracts.permissions import PERMISSIONS
from contracts.problems import Reason
from contracts.services import MODULES
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection
from tests.simulation.truth import (
    ROOT_KEY,
    Asking,
    MembershipRow,
    PermissionsRow,
    Question,
    Row,
    Truth,
    documents,
    draw_id,
    draw_instants,
    draw_rows,
    draw_successor,
    microseconds_of,
)

_NOWHERE: Final = KafkaConnection(bootstrap_servers="127.0.0.1:1", username="nobody", password="none")
_START: Final = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
_SECOND: Final = 1_000_000
_BOOTED_SECONDS_AGO: Final = 100_000
#: How often the rows of a world change, at how many times each state is asked about, and how often each time.
_STATES: Final = 4
_INSTANTS: Final = 6
_QUESTIONS: Final = 60
_SHOWN_MAX: Final = 5
_ABSENT: Final = "nothing"
_REQUIREMENTS: Final = {
    key: Requirement.of(key) for module, rows in PERMISSIONS.items() for key in rows if key.partition(".")[0] == module
}


@dataclass
class Difference:
    """A question to which the access path and the truth say different things."""

    #: The state of the world it was asked of: its number, and how often its rows had changed.
    world: str
    question: str
    truth: str
    path: str
    #: What the truth was read from.
    rows: list[Row]

    def __str__(self) -> str:
        """For a person to read."""
        lines = [f"world {self.world}: {self.question}", f"  the truth: {self.truth}", f"  the path:  {self.path}"]
        return "\n".join([*lines, *(f"  {row}" for row in self.rows)])


@dataclass
class Outcome:
    """What a run came to: questions asked, what the truth answered how often, and the first differences."""

    pairs: int = 0
    worlds: int = 0
    documents: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    difference_count: int = 0
    first: list[Difference] = field(default_factory=list)

    def note(self, difference: Difference) -> None:
        self.difference_count += 1
        if len(self.first) < _SHOWN_MAX:
            self.first.append(difference)


class _StandingClock:
    """A clock that is set, in microseconds."""

    def __init__(self) -> None:
        self.now = microseconds_of(_START)

    def clocks(self) -> Clocks:
        return Clocks(
            wall_us=lambda: self.now,
            boot_us=lambda: self.now - microseconds_of(_START) + _BOOTED_SECONDS_AGO * _SECOND,
            boot_id="a boot",
        )


class _Worlds:
    """One cache that is filled with one world after the other."""

    def __init__(self, path: AccessPath, clock: _StandingClock, seed: int, outcome: Outcome) -> None:
        self._path = path
        self._clock = clock
        self._clocks = clock.clocks()
        self._ingest = Ingest(modules=MODULES, root_key=ROOT_KEY.public_key())
        self._seed = seed
        self._outcome = outcome
        self._world = ""

    def ask(self, number: int, pairs: int) -> None:
        """Fill the world of this number and ask so many questions about it, or as many as a world is good for."""
        random = Random(f"{self._seed}/{number}")
        at = _START + timedelta(days=random.randint(-20, 20), microseconds=random.randint(0, _SECOND))
        rows = {(row.topic.name, row.key): row for row in draw_rows(random, at)}
        end = self._outcome.pairs + pairs
        self._path.cache.start_over()
        self._outcome.worlds += 1
        outdated: list[Row] = []
        for state in range(_STATES):
            self._world = f"{number}, changed {state} times"
            changed = list(rows.values())
            if state:
                changed = random.sample(changed, random.randint(1, len(changed)))
                outdated = [*outdated, *changed]
                changed = [draw_successor(random, row, at) for row in changed]
                rows |= {(row.topic.name, row.key): row for row in changed}
            self._apply(random, [*changed, *random.choices([*changed, *outdated], k=len(changed) // 2)])
            self._compare_documents(rows.values())
            truth = Truth(rows.values())
            asking = Asking(random, truth)
            for instant in draw_instants(random, at, _INSTANTS):
                now = self._set_time(random, instant)
                for _ in range(_QUESTIONS):
                    if self._outcome.pairs == end:
                        return
                    self._ask_one(random, asking, truth, now)

    def _apply(self, random: Random, rows: list[Row]) -> None:
        """As the feed does, in batches of any size and order."""
        random.shuffle(rows)
        changes = [self._ingest.change_of(row.topic.name, 0, row.key.encode(), _event(random, row)) for row in rows]
        while changes:
            size = random.randint(1, len(changes))
            self._path.cache.apply(self._path.cache.head().active, changes[:size], {})
            del changes[:size]

    def _set_time(self, random: Random, instant: datetime) -> datetime:
        """Make it this time, with heartbeats that are a moment old; returns what an expiry is to be judged at."""
        self._clock.now = microseconds_of(instant)
        wall, boot = self._clocks.wall_us(), self._clocks.boot_us()
        owner = OwnerFreshness(
            # A source whose clock is ahead, or behind by as much.
            as_of=wall + random.choice([-3 * _SECOND, -1, 0, 0, 0, 1, 2 * _SECOND]),
            lag=0,
            received_wall=wall,
            received_boot=boot,
        )

        def revise(head: Head) -> Head:
            return replace(head, complete=True, owners=tuple(owner for _ in OWNERS))

        self._path.cache.apply(self._path.cache.head().active, (), {}, revise)
        self._clock.now += random.choice([0, 0, 1, 30 * _SECOND])
        passed = timedelta(microseconds=self._clock.now - wall)
        return instant + passed + max(timedelta(0), timedelta(microseconds=owner.as_of - wall))

    def _ask_one(self, random: Random, asking: Asking, truth: Truth, now: datetime) -> None:
        kind = random.random()
        reading = kind < 0.5
        if 0.05 < kind < 0.95:
            asked = asking.question()
            company, user, key, values = asked.company_id, asked.user_id, asked.permission_key, asked.values
            said = truth.answer(company, user, key, values, now)
            decision = self._path.decide(company, user, _REQUIREMENTS[key], reading=reading, values=values)
            self._note("decide", said, decision.reason, truth, now, asked)
        else:
            self._ask_other(random, asking, truth, now)

    def _ask_other(self, random: Random, asking: Asking, truth: Truth, now: datetime) -> None:
        """A guard, a session or a key."""
        path, (company, user) = self._path, asking.member()
        match random.randrange(5):
            case 0:
                said = truth.answer_active_member(company, user)
                found = path.decide_active_member(company, user, reading=random.random() < 0.5).reason
                self._note("guard A", said, found, truth, now, (company, user))
            case 1:
                said = truth.answer_company_admin(company, user)
                self._note(
                    "guard T", said, path.decide_company_admin(company, user).reason, truth, now, (company, user)
                )
            case 2:
                said = truth.answer_platform_admin(user)
                self._note("guard P", said, path.decide_platform_admin(user).reason, truth, now, (user,))
            case 3:
                session = asking.session()
                self._note(
                    "session", truth.session_is_live(*session), path.session_is_live(*session), truth, now, session
                )
            case _:
                kid = asking.kid()
                believed = truth.signing_keys[kid].public_key if truth.key_verifies(kid, now) else None
                key = path.signing_key(kid)
                found_key = None if key is None else key.public_bytes_raw()
                self._note("signing key", believed, found_key, truth, now, (kid,))

    def _note(self, kind: str, said: Any, found: Any, truth: Truth, now: datetime, asked: Any) -> None:
        outcome = self._outcome
        outcome.pairs += 1
        outcome.answers[_word(kind, said)] += 1
        if said == found:
            return
        outcome.note(
            Difference(
                world=self._world,
                question=f"{kind} {asked} at {now.isoformat()}",
                truth=_word(kind, said),
                path=_word(kind, found),
                rows=list(_rows_about(truth, asked)),
            )
        )

    def _compare_documents(self, rows: Iterable[Row]) -> None:
        said = {(kind, key): document for kind, key, document in documents(rows)}
        found = {(kind, key): document for kind, key, document in digest.documents(self._path.cache)}
        self._outcome.documents += len(said)
        for subject in sorted(said.keys() | found.keys()):
            expected, held = said.get(subject), found.get(subject)
            if expected is None or held is None or digest.digest_of(expected) != digest.digest_of(held):
                question = "the document of {} {}".format(*subject)
                self._outcome.note(Difference(self._world, question, *_apart(expected, held), []))


def _apart(one: Any, other: Any, where: str = "") -> tuple[str, str]:
    """Where two documents differ first, and what each says there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            if one.get(name, _ABSENT) != other.get(name, _ABSENT):
                return _apart(one.get(name, _ABSENT), other.get(name, _ABSENT), f"{where}/{name}")
    return f"{where or '/'}: {one}", f"{where or '/'}: {other}"


def _word(kind: str, answer: Any) -> str:
    match answer:
        case None:
            return f"{kind}: yes" if kind != "signing key" else f"{kind}: none"
        case Reason():
            return f"{kind}: {answer.value}"
        case bytes():
            return f"{kind}: found"
        case _:
            return f"{kind}: {answer}"


def _rows_about(truth: Truth, asked: Any) -> Iterator[Row]:
    """What the truth was read from, without what it did not look at."""
    if isinstance(asked, Question):
        key, module = asked.permission_key, asked.permission_key.partition(".")[0]
        for membership in _memberships(truth, asked.company_id, asked.user_id):
            granted = {name: each for name, each in membership.modules.items() if name == module}
            yield replace(membership, modules=granted, delegations=())
        if asked.company_id in truth.entitlements:
            yield truth.entitlements[asked.company_id]
        rows = truth.permissions.get(module, {})
        yield PermissionsRow(
            module, {each: row for each, row in rows.items() if each == key or row.alias_of is not None}, version=0
        )
        return
    for subject in asked:
        if subject in truth.sessions:
            yield truth.sessions[subject]
        if subject in truth.signing_keys:
            yield truth.signing_keys[subject]
        for company in (PLATFORM_COMPANY_ID, asked[0]):
            yield from _memberships(truth, company, subject)


def _memberships(truth: Truth, company: Any, user: Any) -> Iterator[MembershipRow]:
    row = truth.memberships.get((company, user))
    if row is not None:
        yield row


def _event(random: Random, row: Row) -> bytes:
    """The record value the owner would publish."""
    return encode(
        envelop(
            row.payload(),
            occurred_at=_START,
            company_id=row.company_id,
            actor_user_id=None,
            epoch=1,
            version=row.version,
            correlation_id=UUID(int=0),
            event_id=draw_id(random),
        )
    )


@contextmanager
def _empty_path(folder: Path, clock: _StandingClock) -> Iterator[AccessPath]:
    path = AccessPath.open(
        folder,
        service="differential",
        modules=MODULES,
        kafka=KafkaClients(_NOWHERE),
        root_key=ROOT_KEY.public_key(),
        clocks=clock.clocks(),
    )
    try:
        yield path
    finally:
        path.close()


def compare(seed: int, pairs: int, folder: Path) -> Outcome:
    """Ask so many questions of the worlds of a seed, with a cache in an empty folder."""
    outcome = Outcome()
    clock = _StandingClock()
    with _empty_path(folder, clock) as path:
        worlds = _Worlds(path, clock, seed, outcome)
        number = 0
        while outcome.pairs < pairs:
            worlds.ask(number, pairs - outcome.pairs)
            number += 1
    return outcome


def main() -> int:
    """Run from the command line; 1 where there is a difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None, help="drawn and shown where it is not given")
    arguments = parser.parse_args()
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    say = sys.stdout.write
    say(f"differential: seed {seed}\n")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = compare(seed, arguments.pairs, Path(folder) / "cache")
    seconds = time.monotonic() - began
    for answer, count in sorted(outcome.answers.items(), key=lambda each: -each[1]):
        say(f"  {count:>9,}  {answer}\n")
    for difference in outcome.first:
        say(f"\n{difference}\n")
    say(
        f"differential: seed {seed}, {outcome.pairs:,} pairs in {outcome.worlds:,} worlds, "
        f"{outcome.documents:,} documents, {outcome.difference_count} differences, {seconds:.1f} s\n"
    )
    return 1 if outcome.difference_count else 0


if __name__ == "__main__":
    sys.exit(main())
