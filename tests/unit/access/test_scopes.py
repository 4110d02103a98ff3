from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.records import Scope
from access.scopes import filter_of, first_outside

TYPES = ("business_unit", "event")
IDS = st.sampled_from(["a", "b", "c"])
SCOPES = st.dictionaries(st.sampled_from(TYPES), st.just("*") | st.lists(IDS, max_size=2).map(tuple))
VALUES = st.dictionaries(st.sampled_from(TYPES), st.none() | IDS)


@pytest.mark.parametrize(
    ("scopes", "values", "outside"),
    [
        ({"business_unit": "*", "event": "*"}, {}, None),
        ({"business_unit": ("a",), "event": "*"}, {"business_unit": "a"}, None),
        ({"business_unit": ("a",), "event": "*"}, {"business_unit": "b"}, "business_unit"),
        ({"business_unit": ("a",), "event": "*"}, {"business_unit": None}, "business_unit"),
        ({"business_unit": ("a",), "event": "*"}, {}, "business_unit"),
        ({"business_unit": ("a",), "event": ()}, {"business_unit": "a", "event": "e"}, "event"),
        ({"business_unit": ("a",)}, {"business_unit": "a", "event": "e"}, "event"),
        ({}, {"business_unit": "a", "event": "e"}, "business_unit"),
        ({"business_unit": ("a", "b"), "event": ("e",)}, {"business_unit": "b", "event": "e"}, None),
        ({"business_unit": ("*",), "event": "*"}, {"business_unit": "a"}, "business_unit"),
    ],
)
def test_types_combine_with_and_and_nothing_is_nothing(
    scopes: dict[str, Scope], values: dict[str, str | None], outside: str | None
) -> None:
    assert first_outside(scopes, TYPES, values) == outside


@given(SCOPES, VALUES)
def test_an_object_is_inside_exactly_when_a_filtered_list_shows_it(
    scopes: dict[str, Scope], values: dict[str, str | None]
) -> None:
    query = filter_of(scopes, TYPES)
    shown = all(query.ids(name) == "*" or values.get(name) in query.ids(name) for name in TYPES)
    assert (first_outside(scopes, TYPES, values) is None) is shown


@given(SCOPES, VALUES, st.sampled_from(TYPES), IDS)
def test_more_scope_never_takes_an_object_away(
    scopes: dict[str, Scope], values: dict[str, str | None], name: str, added: str
) -> None:
    held = scopes.get(name, ())
    wider = {**scopes, name: held if held == "*" else (*held, added)}
    if first_outside(scopes, TYPES, values) is None:
        assert first_outside(wider, TYPES, values) is None


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ("EUR:500000", True),
        ("EUR:500001", False),
        ("USD:1", False),
        ("EUR:-1", False),
        ("EUR:1.5", False),
        ("500", False),
        (None, False),
    ],
)
def test_an_approval_limit_is_an_amount_per_currency(value: str | None, *, inside: bool) -> None:
    scopes: dict[str, Scope] = {"approval_limit": ("CHF:9", "EUR:500000", "nonsense")}
    assert (first_outside(scopes, ["approval_limit"], {"approval_limit": value}) is None) is inside


def test_ids_of_a_filter_as_uuids() -> None:
    unit = uuid4()
    query = filter_of({"business_unit": (str(unit), "legacy"), "event": "*"}, TYPES)
    assert query.uuids("business_unit") == (unit,)
    assert query.uuids("event") == "*"
    assert query.uuids("venue") == ()


def test_what_shows_everything_is_bounded_by_no_type() -> None:
    assert filter_of({"business_unit": "*", "event": "*"}, TYPES[:2]).is_unbounded
    assert not filter_of({"business_unit": "*", "event": ("one",)}, TYPES[:2]).is_unbounded
    assert not filter_of({"business_unit": "*"}, TYPES[:2]).is_unbounded
