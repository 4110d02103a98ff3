"""Golden problem bodies: one for each code that several services answer with, for clients to build against."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import chassis.idempotency
import chassis.imports
import chassis.kept_files
import chassis.paging
import chassis.preconditions
import chassis.uploads
import contracts.transitions
from chassis.imports import RowsRefusedError
from chassis.problems import STATUS_OF_KIND
from contracts.errors import DomainError
from contracts.problems import Problem, ProblemCode, problem_type

EXAMPLES = Path(__file__).parents[2] / "contracts" / "problem_examples"
#: Whose refusals are alike in every service.
SHARED = (
    chassis.idempotency,
    chassis.imports,
    chassis.kept_files,
    chassis.paging,
    chassis.preconditions,
    chassis.uploads,
    contracts.transitions,
)


def errors() -> Iterator[type[DomainError]]:
    for module in SHARED:
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, DomainError) and found.__module__ == module.__name__:
                yield found


ERRORS = list(errors())


def test_every_shared_refusal_has_its_golden_body() -> None:
    codes = [error.code for error in ERRORS]
    assert len(codes) == len(set(codes)) == 12
    assert set(codes) <= {code.value for code in ProblemCode}
    assert {path.stem for path in EXAMPLES.glob("*.json")} == set(codes)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.code))
def test_a_golden_body_is_what_the_refusal_is_answered_with(error: type[DomainError]) -> None:
    text = (EXAMPLES / f"{error.code}.json").read_text(encoding="utf-8")
    problem = Problem.model_validate_json(text)
    assert json.loads(problem.model_dump_json()) == json.loads(text)
    assert (problem.code, problem.type) == (error.code, problem_type(error.code))
    assert (problem.title, problem.status) == (error.title, STATUS_OF_KIND[error.kind])
    if error is RowsRefusedError:
        assert problem.errors
        return
    pointers = None if problem.errors is None else [(fault.pointer, fault.rule) for fault in problem.errors]
    assert pointers == (None if error.pointer is None else [(error.pointer, error.code)])
