"""A quarter of a minute of it, and whether the oracle sees what it is there for."""

from pathlib import Path

import pytest

from infra.embedded.state import StateFolder
from tests.chaos.company import FULL, READ, REMOVED, Question, Standing, allows, set_permissions
from tests.chaos.oracle import Answer, Asked, Oracle, Timeline
from tests.chaos.workers import workers
from tests.harness.runtime import Runtime

BOUND = 10.0
LIST = Question("list", "GET", "/expenses?limit=0", READ, passed=422)
DENIED = set_permissions(FULL, frozenset()).after


@pytest.fixture
def oracle() -> Oracle[str, Standing, Question]:
    """Somebody who was let in at 0, was denied it by a write sent at 100 and answered at 101."""
    oracle = Oracle[str, Standing, Question](allows, bound_seconds=BOUND)
    timeline = oracle.timelines["ben"] = Timeline(FULL, 0.0)
    timeline.send(DENIED, 100.0).answered = 101.0
    return oracle


def answered(answer: Answer, started: float, ended: float | None = None) -> Asked[str, Question]:
    return Asked("ben", LIST, started, started + 0.1 if ended is None else ended, answer)


@pytest.mark.parametrize(("started", "violations"), [(99.0, 0), (110.9, 0), (111.1, 1), (500.0, 1)])
def test_who_is_let_in_after_the_bound_was_over_granted(
    oracle: Oracle[str, Standing, Question], started: float, violations: int
) -> None:
    oracle.asked.append(answered(Answer.ALLOWED, started))
    found = oracle.judge()
    assert (len(found.over_grants), found.under_grants, found.wrong) == (violations, [], [])
    assert found.is_clean is not bool(violations)


@pytest.mark.parametrize(("started", "violations"), [(5.0, 0), (15.9, 0), (16.1, 1), (99.8, 1), (99.95, 0)])
def test_who_is_refused_what_stood_for_longer_than_the_bound_was_under_granted(
    oracle: Oracle[str, Standing, Question], started: float, violations: int
) -> None:
    oracle.timelines["ben"] = Timeline(REMOVED, 0.0)
    oracle.timelines["ben"].send(FULL, 5.0).answered = 6.0
    oracle.timelines["ben"].send(DENIED, 100.0).answered = 101.0
    oracle.asked.append(answered(Answer.REFUSED, started))
    found = oracle.judge()
    assert (found.over_grants, len(found.under_grants)) == ([], violations)


def test_that_nothing_is_known_is_no_violation_and_another_status_is(oracle: Oracle[str, Standing, Question]) -> None:
    oracle.asked += [answered(Answer.UNKNOWN, 500.0), answered(Answer.NONE, 500.0), answered(Answer.WRONG, 500.0)]
    found = oracle.judge()
    assert (found.over_grants, found.under_grants, len(found.wrong)) == ([], [], 1)


def test_a_write_without_an_answer_may_or_may_not_count(oracle: Oracle[str, Standing, Question]) -> None:
    granted = oracle.timelines["ben"].send(FULL, 200.0)
    oracle.asked += [answered(Answer.ALLOWED, 300.0), answered(Answer.REFUSED, 300.0)]
    assert oracle.judge().is_clean

    oracle.timelines["ben"].drop(granted)
    found = oracle.judge()
    assert (len(found.over_grants), found.under_grants) == (1, [])

    oracle.timelines["ben"].send(FULL, 200.0).answered = 201.0
    found = oracle.judge()
    assert (found.over_grants, len(found.under_grants)) == ([], 1)


def test_what_was_restored_counts_from_when_it_was(oracle: Oracle[str, Standing, Question]) -> None:
    timeline = oracle.timelines["ben"]
    timeline.send(FULL, 150.0).answered = 151.0
    timeline.send(REMOVED, 160.0)
    timeline.replace(DENIED, 170.0, 175.0)
    oracle.asked += [answered(Answer.ALLOWED, 184.0), answered(Answer.REFUSED, 172.0)]
    assert oracle.judge().is_clean
    oracle.asked.append(answered(Answer.ALLOWED, 186.0))
    assert len(oracle.judge().over_grants) == 1


def test_revocations_are_timed_from_their_answer_to_the_first_refusal(oracle: Oracle[str, Standing, Question]) -> None:
    oracle.asked += [
        answered(Answer.ALLOWED, 101.5),
        answered(Answer.REFUSED, 102.0, ended=102.25),
        answered(Answer.REFUSED, 103.0),
    ]
    assert oracle.revocations() == [1.25]
    assert oracle.judge().longest_allow_seconds == 0.5


@pytest.mark.timeout(200)
async def test_two_workers_killed_every_second_never_let_in_who_was_denied(tmp_path: Path, runtime: Runtime) -> None:
    # The run's own Kafka has fetched what this one starts with.
    folder = tmp_path / "kisum"
    try:
        outcome = await workers(folder, seed=1, minutes=0.25)
    finally:
        if folder.exists():
            StateFolder.open(folder, minimum_free_bytes=0).remove()
    assert outcome.failures == [], "\n".join([*outcome.lines, *outcome.failures])
