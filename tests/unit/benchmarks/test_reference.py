"""What the benchmarks measure with is what they say it is."""

from uuid import UUID

import pytest

from access.ingest import MEMBERSHIPS, STATE_TOPICS
from benchmarks.figures import GOALS, Figure, medians, percentile
from benchmarks.reference import MISSING_PERMISSION, MODULE, PERMISSION, MembershipRecords, membership, person
from contracts.envelope import decode, encode
from contracts.events.auth import GrantChanged

PEOPLE = 1000


@pytest.mark.parametrize("number", [0, 7, 999])
def test_a_record_is_what_the_contracts_would_write(number: int) -> None:
    record = MembershipRecords(PEOPLE, version=3).of(number)
    topic = STATE_TOPICS[MEMBERSHIPS]
    envelope = decode(record.value, (GrantChanged,))
    company_id, user_id = person(number, PEOPLE)
    assert encode(envelope) == record.value
    assert topic.record_key(envelope) == record.key
    assert (envelope.company_id, envelope.data.user_id, envelope.version) == (company_id, user_id, 3)
    (unit,), (show,) = (envelope.data.modules[1].scopes[name] for name in ("business_unit", "event"))
    assert UUID(unit) != UUID(show)
    assert envelope.data == membership(user_id, business_unit=unit, show=show)


def test_the_reference_membership_is_that_of_the_design() -> None:
    _, user_id = person(1, PEOPLE)
    state = membership(user_id, business_unit="unit", show="show")
    held = [key for module in state.modules for key in module.permissions]
    kept = next(module for module in state.modules if module.key == MODULE)
    assert len(set(held)) == len(held) == 27
    assert sum(len(ids) for ids in kept.scopes.values() if ids != "*") == 2
    assert PERMISSION in kept.permissions
    assert MISSING_PERMISSION not in held


def test_everybody_is_somebody_else() -> None:
    assert len({person(number, PEOPLE) for number in range(PEOPLE)}) == PEOPLE
    assert len({person(number, PEOPLE)[0] for number in range(PEOPLE)}) == PEOPLE // 100


def test_a_figure_is_held_to_its_goal_in_its_direction() -> None:
    assert Figure("decision_p50_us", 5, "us").ok is True
    assert Figure("decision_p50_us", 5.1, "us").ok is False
    assert Figure("relay_rows_per_second", 20_000, "1/s").ok is True
    assert Figure("relay_rows_per_second", 19_999, "1/s").ok is False
    assert Figure("bare_lmdb_p50_us", 1e9, "us").ok is None
    assert all(goal.bound >= 0 for goal in GOALS.values())


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (75, 3), (76, 4), (99, 4), (100, 4), (0, 1)])
def test_a_percentile_is_one_of_the_values(percent: int, value: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == value


async def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def contender(name: str, values: list[float]) -> object:
        async def measure() -> dict[str, float]:
            turns.append(name)
            return {name: values.pop()}

        return measure

    found = await medians({"a": contender("a", [9, 1, 2]), "b": contender("b", [3, 3, 5])}, 3)  # type: ignore[dict-item]
    assert turns == ["a", "b"] * 3
    assert found == {"a": 2, "b": 3}
