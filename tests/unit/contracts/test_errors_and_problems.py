import json
from typing import ClassVar

import pytest
from pydantic import ValidationError

from contracts.errors import DomainError, Kind
from contracts.problems import FieldFault, Fix, FixAction, FixBy, Problem, ProblemCode, Reason, problem_type


class SeatTakenError(DomainError):
    kind: ClassVar[Kind] = Kind.CONFLICT
    code: ClassVar[str] = "seat_taken"
    title: ClassVar[str] = "The seat is taken"


def test_an_error_carries_its_facts() -> None:
    error = SeatTakenError("Seat 4 is taken until noon.", seat=4)
    assert (error.kind, error.code, error.detail, error.facts) == (
        Kind.CONFLICT,
        "seat_taken",
        "Seat 4 is taken until noon.",
        {"seat": 4},
    )
    assert str(error) == "Seat 4 is taken until noon."
    assert str(SeatTakenError()) == "The seat is taken"


def test_an_error_class_without_a_code_is_refused() -> None:
    with pytest.raises(TypeError, match="does not say its kind, code, title"):
        type("SilentError", (DomainError,), {})


@pytest.mark.parametrize("code", ["SeatTaken", "seat-taken", "seat taken", "", "_seat"])
def test_an_error_class_with_a_code_that_is_no_slug_is_refused(code: str) -> None:
    with pytest.raises(TypeError, match="is not a slug"):
        type("OddError", (DomainError,), {"kind": Kind.INVALID, "code": code, "title": "Odd"})


def test_absent_fields_are_left_out_of_the_body() -> None:
    problem = Problem(type=problem_type("not_found"), title="Not found", status=404, code=ProblemCode.NOT_FOUND)
    assert json.loads(problem.model_dump_json()) == {
        "type": "urn:kisum:problem:not_found",
        "title": "Not found",
        "status": 404,
        "code": "not_found",
    }


def test_a_full_body_names_the_layer_and_the_fix() -> None:
    problem = Problem(
        type=problem_type(Reason.MODULE_NOT_ENTITLED),
        title="Your company has not bought this module",
        status=403,
        code=Reason.MODULE_NOT_ENTITLED,
        module="finance",
        permission="finance.expenses.read",
        fix=Fix(action=FixAction.BUY_ADDON, by=FixBy.COMPANY_ADMIN),
        revision="entitlements.companies.v1:c:1:4",
        age_seconds=0.0,
        errors=(FieldFault(pointer="/lines/0", rule="currency", detail="Not a currency."),),
    )
    body = json.loads(problem.model_dump_json())
    assert body["fix"] == {"action": "buy_addon", "by": "company_admin"}
    assert body["age_seconds"] == 0.0
    assert body["errors"] == [{"pointer": "/lines/0", "rule": "currency", "detail": "Not a currency."}]
    assert "request_id" not in body
    assert problem.model_dump(mode="json") == body


@pytest.mark.parametrize("changes", [{"status": 200}, {"code": "Not Found"}, {"hint": "x"}])
def test_what_is_no_problem_is_refused(changes: dict[str, object]) -> None:
    fields: dict[str, object] = {"type": "t", "title": "T", "status": 404, "code": "not_found"}
    with pytest.raises(ValidationError):
        Problem.model_validate({**fields, **changes})


def test_the_layers_are_judged_in_this_order() -> None:
    assert [reason.value for reason in Reason] == [
        "not_a_member",
        "membership_inactive",
        "base_inactive",
        "module_not_entitled",
        "capability_missing",
        "module_not_granted",
        "permission_missing",
        "out_of_scope",
        "state_unknown",
    ]


def test_codes_of_the_platform_and_of_decisions_never_meet() -> None:
    assert not {code.value for code in ProblemCode} & {reason.value for reason in Reason}
