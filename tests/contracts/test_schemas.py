"""A schema never breaks an older record or reader; what is committed is what the models say."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.schema_compatibility import breaks_between
from contracts.schema_export import IncompatibleSchemaError, breaks_of, read_schemas, schemas, write_schemas

GRANT = "auth.grant-changed.v1.json"
RENEWED = "checkout.subscription-renewed.v1.json"

Schema = dict[str, Any]


def _data(schema: Schema, name: str) -> Schema:
    found: Schema = schema["$defs"][name]
    return found


def test_the_committed_schemas_are_those_of_the_models() -> None:
    assert read_schemas() == schemas(), "run `python -m contracts.schema_export`"


def test_the_models_break_nothing_that_was_committed() -> None:
    assert breaks_of(read_schemas(), schemas()) == []


def _remove_field(schema: Schema) -> None:
    del _data(schema, "GrantChanged")["properties"]["superadmin"]
    _data(schema, "GrantChanged")["required"].remove("superadmin")


def _rename_field(schema: Schema) -> None:
    fields = _data(schema, "GrantChanged")["properties"]
    fields["is_superadmin"] = fields.pop("superadmin")


def _require_new_field(schema: Schema) -> None:
    _data(schema, "GrantChanged")["properties"]["team_id"] = {"type": "string"}
    _data(schema, "GrantChanged")["required"].append("team_id")


def _change_type(schema: Schema) -> None:
    _data(schema, "GrantChanged")["properties"]["superadmin"] = {"type": "integer"}


def _refuse_null(schema: Schema) -> None:
    schema["properties"]["actor_user_id"] = {"type": "string", "format": "uuid"}


def _raise_minimum(schema: Schema) -> None:
    schema["properties"]["epoch"]["minimum"] = 2


def _lower_maximum(schema: Schema) -> None:
    schema["properties"]["aggregate_id"]["maxLength"] = 100


def _add_limit(schema: Schema) -> None:
    _data(schema, "GrantChanged")["properties"]["modules"]["maxItems"] = 8


def _change_pattern(schema: Schema) -> None:
    _data(schema, "ModuleGrant")["properties"]["key"]["pattern"] = "^[a-z]+$"


def _forget_status(schema: Schema) -> None:
    _data(schema, "GrantChanged")["properties"]["status"]["x-known-values"].remove("suspended")


def _close_status(schema: Schema) -> None:
    _data(schema, "GrantChanged")["properties"]["status"]["enum"] = ["active", "removed"]


def _drop_alternative(schema: Schema) -> None:
    scopes = _data(schema, "ModuleGrant")["properties"]["scopes"]["patternProperties"]
    (pattern,) = scopes
    scopes[pattern] = {"const": "*", "type": "string"}


def _narrow_inside_a_list(schema: Schema) -> None:
    _data(schema, "Delegation")["properties"]["permissions"]["anyOf"][1]["items"]["maxLength"] = 20


def _narrow_names_of_a_map(schema: Schema) -> None:
    scopes = _data(schema, "ModuleGrant")["properties"]["scopes"]["patternProperties"]
    (pattern,) = scopes
    scopes["^(event|tour)$"] = scopes.pop(pattern)


def _refuse_unknown_fields(schema: Schema) -> None:
    _data(schema, "GrantChanged")["additionalProperties"] = False


def _add_unknown_keyword(schema: Schema) -> None:
    _data(schema, "GrantChanged")["not"] = {"properties": {"superadmin": {"const": True}}}


@pytest.mark.parametrize(
    ("change", "kind", "path"),
    [
        (_remove_field, "removed", "/data/superadmin"),
        (_rename_field, "removed", "/data/superadmin"),
        (_require_new_field, "required", "/data/team_id"),
        (_change_type, "narrowed", "/data/superadmin"),
        (_refuse_null, "narrowed", "/actor_user_id"),
        (_raise_minimum, "narrowed", "/epoch"),
        (_lower_maximum, "narrowed", "/aggregate_id"),
        (_add_limit, "narrowed", "/data/modules"),
        (_change_pattern, "narrowed", "/data/modules/*/key"),
        (_forget_status, "narrowed", "/data/status"),
        (_close_status, "narrowed", "/data/status"),
        (_drop_alternative, "narrowed", "/data/modules/*/scopes/*"),
        (_narrow_inside_a_list, "narrowed", "/data/delegations/*/permissions/*"),
        (_narrow_names_of_a_map, "narrowed", "/data/modules/*/scopes/*"),
        (_refuse_unknown_fields, "narrowed", "/data/*"),
        (_add_unknown_keyword, "narrowed", "/data"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else None,
)
def test_a_break_is_found(change: Callable[[Schema], None], kind: str, path: str) -> None:
    old = schemas()[GRANT]
    new = copy.deepcopy(old)
    change(new)
    assert (kind, path) in [(found.kind, found.path) for found in breaks_between(old, new)]


def _add_optional_field(schema: Schema) -> None:
    _data(schema, "GrantChanged")["properties"]["team_id"] = {"type": "string", "default": ""}


def _know_a_further_status(schema: Schema) -> None:
    _data(schema, "GrantChanged")["properties"]["status"]["x-known-values"].append("paused")


def _take_null_too(schema: Schema) -> None:
    _data(schema, "GrantChanged")["properties"]["superadmin"] = {"anyOf": [{"type": "boolean"}, {"type": "null"}]}


def _raise_maximum(schema: Schema) -> None:
    schema["properties"]["aggregate_id"]["maxLength"] = 400


def _describe_otherwise(schema: Schema) -> None:
    _data(schema, "GrantChanged")["description"] = "Other words."


@pytest.mark.parametrize(
    "change", [_add_optional_field, _know_a_further_status, _take_null_too, _raise_maximum, _describe_otherwise]
)
def test_growth_is_no_break(change: Callable[[Schema], None]) -> None:
    old = schemas()[GRANT]
    new = copy.deepcopy(old)
    change(new)
    assert new != old
    assert breaks_between(old, new) == []


def test_an_event_type_never_goes() -> None:
    new = schemas()
    del new[RENEWED]
    assert breaks_of(schemas(), new) == [f"{RENEWED}: the event type is gone; its records are not"]


def test_a_break_is_not_written(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    assert read_schemas(tmp_path) == schemas()
    committed = (tmp_path / GRANT).read_text(encoding="utf-8")
    # As if the field had been there before and the models had lost it.
    (tmp_path / GRANT).write_text(committed.replace('"superadmin"', '"owner"'), encoding="utf-8")
    (tmp_path / RENEWED).write_text((tmp_path / RENEWED).read_text().replace("2020-12", "2019-09"), encoding="utf-8")
    before = read_schemas(tmp_path)
    with pytest.raises(IncompatibleSchemaError, match="/data/owner removed"):
        write_schemas(tmp_path)
    assert read_schemas(tmp_path) == before
