"""What a change says, and what it leaves out."""

from datetime import date
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from chassis.routing import ChangesModel, DateText, IdText, RequestModel


class New(RequestModel):
    name: Annotated[str, Field(min_length=1)]
    day: DateText
    unit_id: IdText | None = None


class Changes(ChangesModel, New):
    """What is to be different."""


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({}, {}),
        ({"name": "Stage"}, {"name": "Stage"}),
        ({"day": "2026-05-21", "unit_id": None}, {"day": date(2026, 5, 21), "unit_id": None}),
    ],
)
def test_what_is_left_out_is_not_said(sent: dict[str, Any], said: dict[str, Any]) -> None:
    assert Changes.model_validate(sent).said() == said


@pytest.mark.parametrize("sent", [{"name": ""}, {"name": None}, {"name": "a\0b"}, {"day": None}, {"other": "x"}])
def test_what_is_said_keeps_the_rules_of_what_is_made(sent: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Changes.model_validate(sent)


def test_the_document_tells_the_same_fields_none_of_them_needed_and_no_default() -> None:
    told, new = Changes.model_json_schema(), New.model_json_schema()
    assert "required" not in told
    assert set(told["properties"]) == set(new["properties"])
    assert all("default" not in field for field in told["properties"].values())
    assert new["required"] == ["name", "day"]
