"""The HTTP edge's one table from errors to answers, as application/problem+json (RFC 9457, design §5)."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chassis.request import record_of
from contracts.errors import DomainError, Kind
from contracts.problems import PROBLEM_MEDIA_TYPE, FieldFault, Fix, FixAction, FixBy, Problem, ProblemCode, problem_type

#: Seconds after which a caller who met a dependency that was away may well be served.
_RETRY_AFTER_SECONDS: Final = 1

STATUS_OF_KIND: Final[Mapping[Kind, HTTPStatus]] = {
    Kind.MALFORMED: HTTPStatus.BAD_REQUEST,
    Kind.INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Kind.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Kind.CONFLICT: HTTPStatus.CONFLICT,
    Kind.PRECONDITION_FAILED: HTTPStatus.PRECONDITION_FAILED,
    Kind.PRECONDITION_REQUIRED: HTTPStatus.PRECONDITION_REQUIRED,
    Kind.REFUSED: HTTPStatus.FORBIDDEN,
    Kind.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Kind.TOO_MANY: HTTPStatus.TOO_MANY_REQUESTS,
    Kind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}

_FIX_OF_KIND: Final[Mapping[Kind, FixAction]] = {
    Kind.UNAUTHENTICATED: FixAction.SIGN_IN,
    Kind.UNAVAILABLE: FixAction.RETRY,
    Kind.TOO_MANY: FixAction.RETRY,
}

_CODE_OF_STATUS: Final[Mapping[int, ProblemCode]] = {
    HTTPStatus.NOT_FOUND: ProblemCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ProblemCode.METHOD_NOT_ALLOWED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ProblemCode.BODY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ProblemCode.UNSUPPORTED_MEDIA_TYPE,
}


def install_problems(app: Starlette, routers: Iterable[APIRouter] = ()) -> None:
    """Make every error that leaves a handler, a guard or the router a problem document.

    `routers` are those the application has its own routes of.
    """
    app.state.routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    app.add_exception_handler(DomainError, _domain_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


def problem_response(scope: Any, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as an answer; its code becomes the reason in the request log."""
    record = record_of(scope)
    record.reason = problem.code
    body = problem.model_copy(update={"request_id": record.request_id})
    return Response(
        body.model_dump_json(), status_code=body.status, headers=dict(headers or {}), media_type=PROBLEM_MEDIA_TYPE
    )


def unexpected_problem() -> Problem:
    """What the caller is told of an exception nobody expected: that nothing was allowed and how to report it."""
    return Problem(
        type=problem_type(ProblemCode.INTERNAL_ERROR),
        title="Something failed on our side",
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        detail="The request was not carried out. Report the request_id if it happens again.",
        code=ProblemCode.INTERNAL_ERROR,
        fix=Fix(action=FixAction.RETRY, by=FixBy.CALLER),
    )


async def _domain_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, DomainError):
        raise TypeError("registered for DomainError only") from error
    status = STATUS_OF_KIND[error.kind]
    action = _FIX_OF_KIND.get(error.kind)
    fix = getattr(error, "fix", None) or (Fix(action=action, by=FixBy.CALLER) if action else None)
    problem = Problem(
        type=problem_type(error.code),
        title=error.title,
        status=status,
        detail=error.detail,
        code=error.code,
        fix=fix,
        # What a refused decision knows of itself (middleware.refusals).
        module=getattr(error, "module", None),
        permission=getattr(error, "permission", None),
        limit=getattr(error, "limit", None),
        revision=getattr(error, "revision", None),
        age_seconds=getattr(error, "age_seconds", None),
        errors=_faults(error),
    )
    return problem_response(request.scope, problem, _headers(status, error))


def _faults(error: DomainError) -> tuple[FieldFault, ...] | None:
    """Those it lists, as the refusal of a table does (chassis.imports), or the one value it points to."""
    if error.pointer:
        return (FieldFault(pointer=error.pointer, rule=error.code, detail=error.detail),)
    return getattr(error, "errors", None)


def _headers(status: HTTPStatus, error: DomainError) -> dict[str, str]:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.TOO_MANY_REQUESTS:
            return {"Retry-After": str(error.retry_after_seconds or _RETRY_AFTER_SECONDS)}
        case _:
            return {}


async def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise TypeError("registered for RequestValidationError only") from error
    fields = tuple(
        FieldFault(pointer=_pointer(problem["loc"]), rule=problem["type"], detail=problem["msg"])
        for problem in error.errors()
    )
    problem = Problem(
        type=problem_type(ProblemCode.INVALID_REQUEST),
        title="The request breaks a rule",
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        detail="; ".join(f"{field.pointer}: {field.detail}" for field in fields),
        code=ProblemCode.INVALID_REQUEST,
        errors=fields,
    )
    return problem_response(request.scope, problem)


def _pointer(location: tuple[Any, ...]) -> str:
    """A JSON pointer into the body (RFC 6901), or `?name`, `path name`, `header name` for the other parts."""
    part, *path = location
    match part:
        case "body":
            steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path if not isinstance(step, int))
            return "/" + "/".join(steps)
        case "query":
            return f"?{path[0]}"
        case _:
            return " ".join(str(step) for step in location)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError("registered for HTTPException only") from error
    code = _CODE_OF_STATUS.get(error.status_code, ProblemCode.INVALID_REQUEST)
    problem = Problem(
        type=problem_type(code),
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=f"{request.method} {request.url.path}: {error.detail}",
        code=code,
    )
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := _allowed_methods(request)):
        headers["Allow"] = allowed
    return problem_response(request.scope, problem, headers)


def _allowed_methods(request: Request) -> str:
    """Of every route with this path, where a route names its own only; nothing where the application has none."""
    routes: list[APIRoute] = request.app.state.routes
    allowed = {method for route in routes if route.path_regex.match(request.url.path) for method in route.methods or ()}
    return ", ".join(sorted(allowed))
