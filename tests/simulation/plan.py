"""What happens in a history: a plan of steps, drawn from one source of randomness.

The same function makes plans for seeds (`random.Random(seed)`) and for Hypothesis (`st.randoms()`), which can then make
a failing plan smaller.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

#: What a membership can come to be. Times are seconds from the write.
MEMBERSHIPS: Final = (
    "removed",
    "suspended",
    "reader",
    "writer by a legacy key",
    "approver of one unit",
    "reader for 4 s",
    "another module",
    "no scope",
    "superadmin",
)
ENTITLEMENTS: Final = ("active", "ended", "past due for 4 s", "another base", "add-on ended", "suspended")
PERMISSIONS: Final = ("as declared", "reading removed", "legacy removed", "writing removed")
SESSIONS: Final = ("next generation", "one session over")
KEYS: Final = ("active", "retired", "revoked")

#: Whose state a write changes, with what it can come to be, and how many subjects there are.
SUBJECTS: Final[Mapping[str, tuple[tuple[str, ...], int]]] = {
    "membership": (MEMBERSHIPS, 6),
    "entitlement": (ENTITLEMENTS, 2),
    "permissions": (PERMISSIONS, 1),
    "sessions": (SESSIONS, 2),
    "signing key": (KEYS, 1),
}
OWNERS: Final = ("auth", "entitlements")
TOPICS: Final = (
    "auth.memberships.v1",
    "entitlements.companies.v1",
    "auth.permissions.v1",
    "auth.sessions.v1",
    "auth.signing-keys.v1",
)
RELAYS: Final = ("auth relay 1", "auth relay 2", "entitlements relay 1", "entitlements relay 2")
READERS: Final = ("reader 1", "reader 2")
MACHINES: Final = ("sources", "reader 1", "reader 2")
POISONS: Final = (
    "no JSON",
    "cut off",
    "a tombstone",
    "a status of the future",
    "the value of another key",
    "an old record",
    "an unreadable key",
    "version 0",
)


@dataclass(frozen=True)
class Step:
    """One thing that happens, so many seconds after the step before it."""

    kind: str
    after_seconds: float
    what: Mapping[str, Any]

    def __str__(self) -> str:
        """As it is shown where a history failed."""
        return f"+{self.after_seconds:5.2f} s  {self.kind}: " + ", ".join(
            f"{name} {value}" for name, value in self.what.items()
        )


@dataclass(frozen=True)
class Plan:
    """A history before it happens. `schedule_seed` decides what runs first where more than one thing could."""

    schedule_seed: int
    #: The clocks of the machines against true time, in seconds.
    clock_offsets: Mapping[str, float]
    steps: tuple[Step, ...]


def plan_of(random: Random) -> Plan:
    """A plan. Each has only some kinds of faults: where all are mixed, one hides the effect of the other."""
    faults = [kind for kind in _FAULTS if random.random() < _FAULT_SHARE]
    fault_share = random.choice((0.2, 0.4, 0.6))
    hurry = random.choice((0.3, 1.0, 2.0))
    steps = []
    for _ in range(random.randint(_STEPS_MIN, _STEPS_MAX)):
        kind = random.choice(faults) if faults and random.random() < fault_share else "write"
        after = round(random.random() * hurry, 3)
        steps.append(Step(kind, after, _STEPS[kind](random)))
    skewed = random.random() < _SKEWED_SHARE
    return Plan(
        schedule_seed=random.randint(0, 2**32 - 1),
        clock_offsets={
            machine: round(random.uniform(-_SKEW_SECONDS, _SKEW_SECONDS), 2) if skewed else 0.0 for machine in MACHINES
        },
        steps=tuple(steps),
    )


_STEPS_MIN: Final = 6
_STEPS_MAX: Final = 30
_FAULT_SHARE: Final = 0.25
_SKEWED_SHARE: Final = 0.2
_REVOKED_SHARE: Final = 0.7
_SKEW_SECONDS: Final = 2.0


def _subject(random: Random) -> dict[str, Any]:
    # Memberships are what most writes are about.
    kind = random.choice((*SUBJECTS, "membership", "membership", "membership", "entitlement"))
    return {"subject": kind, "number": random.randrange(SUBJECTS[kind][1])}


def _write(random: Random) -> Mapping[str, Any]:
    subject = _subject(random)
    return {
        **subject,
        "becomes": random.choice(SUBJECTS[subject["subject"]][0]),
        # How long the transaction stays open after its row was written.
        "open_seconds": random.choice((0.0, 0.0, 0.0, 0.3, 1.5)),
    }


def _touch(random: Random) -> Mapping[str, Any]:
    """Written again in the bulk lane as it is, with others; it may be revoked while the job is at them."""
    return {
        "rows": random.choice((1, 12, 30, 30)),
        "first": random.randrange(SUBJECTS["membership"][1]),
        "revoked": random.random() < _REVOKED_SHARE,
    }


def _kill(random: Random) -> Mapping[str, Any]:
    return {
        "process": random.choice((*RELAYS, *READERS)),
        "steps": random.choice((1, 2, 5, 20, 100, 400)),
        "away_seconds": random.choice((0.1, 1.0, 4.0)),
    }


def _freeze(random: Random) -> Mapping[str, Any]:
    return {"process": random.choice((*RELAYS, *READERS)), "seconds": random.choice((0.5, 3.0, 6.0, 12.0))}


def _seconds(*choices: float) -> Callable[[Random], Mapping[str, Any]]:
    return lambda random: {"seconds": random.choice(choices)}


def _cut_off(random: Random) -> Mapping[str, Any]:
    return {"process": random.choice((*RELAYS, *READERS)), "seconds": random.choice((0.5, 3.0, 12.0, 25.0))}


def _topic(random: Random) -> Mapping[str, Any]:
    return {"topic": random.choice(TOPICS)}


def _lose_tail(random: Random) -> Mapping[str, Any]:
    return {"topic": random.choice(TOPICS), "count": random.choice((1, 2, 5))}


def _partition(random: Random) -> Mapping[str, Any]:
    return {"topic": random.choice(TOPICS), "number": random.randrange(8), "seconds": random.choice((1.0, 6.0, 15.0))}


def _poison(random: Random) -> Mapping[str, Any]:
    return {**_subject(random), "poison": random.choice(POISONS)}


def _database_down(random: Random) -> Mapping[str, Any]:
    return {"owner": random.choice(OWNERS), "seconds": random.choice((0.5, 3.0, 12.0))}


def _owner(random: Random) -> Mapping[str, Any]:
    return {"owner": random.choice(OWNERS)}


def _restore(random: Random) -> Mapping[str, Any]:
    return {
        "owner": random.choice(OWNERS),
        # Whether PostgreSQL tells of it: a file system put back does not.
        "tells": random.choice((True, False)),
        "finish_after_seconds": random.choice((0.2, 2.0, 12.0)),
    }


def _step_clock(random: Random) -> Mapping[str, Any]:
    return {"machine": random.choice(MACHINES[1:]), "seconds": random.choice((-3600.0, -7.0, -3.0, 3.0, 7.0, 3600.0))}


def _reader(random: Random) -> Mapping[str, Any]:
    return {"process": random.choice(READERS)}


def _restart_reader(random: Random) -> Mapping[str, Any]:
    return {
        "process": random.choice(READERS),
        "away_seconds": random.choice((0.1, 5.0, 15.0)),
        "boots": random.choice((True, False)),
    }


_FAULTS: Final[Mapping[str, Callable[[Random], Mapping[str, Any]]]] = {
    "touch": _touch,
    "kill": _kill,
    "freeze": _freeze,
    "broker down": _seconds(0.3, 3.0, 10.0, 25.0),
    "broker slow": _seconds(2.0, 15.0, 25.0),
    "partition without a leader": _partition,
    "acknowledgements lost": _seconds(1.0, 3.0),
    "cut off": _cut_off,
    "compact": _topic,
    "heartbeats collected": lambda _: {},
    "topic made again": _topic,
    "tail lost": _lose_tail,
    "poison": _poison,
    "refused by the log": _subject,
    "a status of the future": _subject,
    "database down": _database_down,
    "backup": _owner,
    "restore": _restore,
    "clock step": _step_clock,
    "replay": _reader,
    "restart": _restart_reader,
}
_STEPS: Final = {**_FAULTS, "write": _write}
