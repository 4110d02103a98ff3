"""What can be copied at all."""

import pytest

from chassis.projections import Projected, Projection
from chassis.states import parsed_key
from contracts.identifiers import new_id


def test_a_topic_that_tells_of_no_status_cannot_be_copied() -> None:
    with pytest.raises(TypeError, match="status"):
        Projection("auth.permissions.v1", Projected, columns_of=lambda _: {})


def test_a_key_names_a_company_and_an_object() -> None:
    company, other = new_id(), new_id()
    assert parsed_key(f"{company}/{other}") == (company, other)
    for text in ("", str(company), f"{company}/", f"{company}/{other}/", f"{company}/{str(other).upper()}x"):
        with pytest.raises(ValueError, match="company"):
            parsed_key(text)
