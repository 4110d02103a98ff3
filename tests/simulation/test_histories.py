"""A few histories in every run of the tests, drawn by Hypothesis; `make simulate` runs many."""

import subprocess
import sys
from collections.abc import Iterator
from random import Random

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.simulation.defects import defects, planted
from tests.simulation.history import run
from tests.simulation.plan import Plan, plan_of
from tests.simulation.run import LIMITS, prepare

_HISTORIES = 40
#: From this seed on a defect of the decision is caught by the seventh history; with room to spare.
_SEED = 5000
_UNTIL_CAUGHT = 100


@pytest.fixture(autouse=True)
def prepared() -> Iterator[None]:
    """What a history changes of its process must not stay for other tests."""
    logging, limits = structlog.get_config(), [(module, dict(vars(module))) for module, _ in LIMITS]
    prepare()
    yield
    structlog.configure(**logging)
    for module, names in limits:
        vars(module).update(names)


@settings(
    max_examples=_HISTORIES,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(st.builds(plan_of, st.randoms(use_true_random=False)))
def test_nobody_is_allowed_what_the_source_refused_and_all_caches_end_as_the_rows_are(plan: Plan) -> None:
    outcome = run(plan)
    assert not outcome.violations, "\n".join([*map(str, outcome.violations), *outcome.trace])
    assert outcome.allowed


def test_a_seed_gives_the_same_history_again() -> None:
    one, other = (run(plan_of(Random(8123))) for _ in range(2))
    assert one == other


def test_every_planted_defect_still_applies_and_says_what_it_breaks() -> None:
    found = defects()
    assert len(found) >= 25
    for defect in found:
        assert len(defect.failure_mode) > 30, defect.name
        assert defect.patch.count("\n@@ ") == 1, f"{defect.name} is one hunk"
        with planted(defect):
            pass


def test_a_planted_defect_is_caught_by_the_oracle() -> None:
    (defect,) = (each for each in defects() if each.name == "absent-scope-means-all")
    with planted(defect) as folder:
        caught = subprocess.run(
            [sys.executable, "-m", "tests.simulation.run", str(_SEED), str(_UNTIL_CAUGHT), "--until-caught"],
            cwd=folder,
            env={"PYTHONPATH": str(folder), "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert caught.returncode == 1, caught.stderr
    assert caught.stdout.startswith("caught by history")
