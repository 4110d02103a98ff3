"""Runs histories of consecutive seeds in one process: `python -m tests.simulation.run SEED COUNT [--until-caught]`.

The last line says what came of them; 1 is the exit code where something was found.
"""

import argparse
import gc
import sys
import time
from random import Random
from typing import Final

import structlog
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from infra.outbox import leader, relay, renewal
from tests.simulation.history import Outcome, run
from tests.simulation.plan import Plan, plan_of

#: Small enough that a few rows are many, and long enough that who waits to lead does not do most of the work.
LIMITS: Final = (
    (leader, {"_BATCH_ROWS_MAX": 6, "CHUNK_ROWS_MAX": 1}),
    (renewal, {"CHUNK_ROWS_MAX": 3}),
    (relay, {"_LOCK_INTERVAL_SECONDS": 1.0}),
)
_SHRINKING_EXAMPLES_MAX: Final = 1000
#: Histories between two collections of garbage.
_COLLECT_INTERVAL: Final = 50


def prepare() -> None:
    """What histories need of the process they run in."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[_drop])
    for module, limits in LIMITS:
        absent = limits.keys() - vars(module).keys()
        if absent:
            raise LookupError(f"{module.__name__} has no {', '.join(absent)}")
        vars(module).update(limits)


def _drop(*_: object) -> str:
    raise structlog.DropEvent


def history(seed: int) -> Outcome:
    """The history of a seed."""
    return run(plan_of(Random(seed)))


def smaller(seed: int) -> Plan | None:
    """A plan that fails with as little as possible in it; none where Hypothesis found no failing one by itself."""
    plans = st.builds(plan_of, st.randoms(use_true_random=False))
    try:
        return find(
            plans,
            lambda plan: bool(run(plan).violations),
            random=Random(seed),
            settings=settings(
                max_examples=_SHRINKING_EXAMPLES_MAX,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    except NoSuchExample:
        return None


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--until-caught", action="store_true", help="end with the first that finds something")
    parser.add_argument("--trace", action="store_true", help="show what happened in each")
    asked = parser.parse_args()
    prepare()
    begun = time.monotonic()
    caught = yes = unknown = questions = 0
    virtual_seconds = 0.0
    # A history leaves little that goes in circles; looking for it all the time takes a seventh of the time.
    gc.disable()
    for number in range(asked.count):
        seed = asked.seed + number
        if number % _COLLECT_INTERVAL == 0:
            gc.collect()
        outcome = history(seed)
        questions, yes, unknown = questions + outcome.asked, yes + outcome.allowed, unknown + outcome.unknown
        virtual_seconds += outcome.virtual_seconds
        if asked.trace:
            sys.stdout.write("\n".join(outcome.trace) + "\n")
        if not outcome.violations:
            continue
        caught += 1
        if asked.until_caught:
            sys.stdout.write(f"caught by history {number + 1} (seed {seed}): {outcome.violations[0]}\n")
            return 1
        sys.stdout.write(f"seed {seed}: " + "\n  ".join(map(str, outcome.violations)) + "\n")
        sys.stdout.write("\n".join(outcome.trace) + "\n")
        if caught == 1:
            _show_smaller(seed)
    sys.stdout.write(
        f"{asked.count} histories of {virtual_seconds / max(1, asked.count):.0f} s each, {questions} questions, "
        f"{yes / max(1, questions):.0%} allowed, {unknown / max(1, questions):.0%} unknown, {caught} with violations, "
        f"{(time.monotonic() - begun) / max(1, asked.count) * 1000:.0f} ms each\n"
    )
    return 1 if caught else 0


def _show_smaller(seed: int) -> None:
    gc.enable()
    plan = smaller(seed)
    if plan is not None:
        sys.stdout.write("the smallest that fails:\n" + "\n".join(f"  {step}" for step in plan.steps) + "\n")


if __name__ == "__main__":
    sys.exit(main())
