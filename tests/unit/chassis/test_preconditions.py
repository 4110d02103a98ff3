import contextlib

import pytest
from fastapi import Response
from hypothesis import given
from hypothesis import strategies as st

from chassis.preconditions import (
    EntityTagMalformedError,
    PreconditionRequiredError,
    VersionMismatchError,
    expected_of,
    set_entity_tag,
)


@given(st.integers(1, 2**40))
def test_the_tag_an_answer_has_is_the_one_a_change_may_send(version: int) -> None:
    response = Response()
    set_entity_tag(response, version)
    expected = expected_of(response.headers["ETag"])
    expected.check(version)
    with pytest.raises(VersionMismatchError, match=f"at version {version + 1} now"):
        expected.check(version + 1)


def test_none_is_asked_for() -> None:
    with pytest.raises(PreconditionRequiredError):
        expected_of(None)


def test_a_star_is_whatever_there_is() -> None:
    for version in (1, 2, 10**9):
        expected_of(" * ").check(version)


def test_one_of_several_is_enough() -> None:
    expected = expected_of('"3" , "5","x"')
    expected.check(3)
    expected.check(5)
    with pytest.raises(VersionMismatchError):
        expected.check(4)


@pytest.mark.parametrize("tag", ['W/"3"', '"03"', '"3.0"', '"+3"', '""', '"three"', '"9223372036854775808000"'])
def test_a_weak_tag_and_one_that_is_no_version_match_nothing(tag: str) -> None:
    with pytest.raises(VersionMismatchError):
        expected_of(tag).check(3)


@pytest.mark.parametrize("tag", ["", "3", '"3', '3"', '"3""4"', '"3",', ',"3"', '*, "3"', "w/3", '"3" "4"', '"' * 3000])
def test_what_is_no_tag_is_malformed(tag: str) -> None:
    with pytest.raises(EntityTagMalformedError):
        expected_of(tag)


@given(st.text())
def test_whatever_is_sent_is_read_or_refused(tag: str) -> None:
    with contextlib.suppress(EntityTagMalformedError):
        expected_of(tag)
