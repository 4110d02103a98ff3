"""The OpenAPI document of a service: what FastAPI knows of each route, and what all of ours have in common.

A guard answers before anything of the route runs, so what it asks for and refuses with is written down here, from the
guard itself, and not beside each handler. So is what is refused of any parameter and of any body: a route tells the
statuses that are its own.
"""

from collections.abc import Iterable
from copy import deepcopy
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from chassis.routing import NEEDED_HEADER, problem_statuses
from contracts.problems import Problem
from middleware.chain import COMPANY_HEADER
from middleware.guards import ActiveMember, CompanyAdmin, Guard, Permission, PlatformAdmin, Public, guard_of

_TOKEN: Final = "token"  # noqa: S105 - the name of a security scheme
_TOKEN_SCHEME: Final = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
_COMPANY_PARAMETER: Final = {
    "name": COMPANY_HEADER,
    "in": "header",
    "required": True,
    "description": "The company the request is for.",
    "schema": {"type": "string", "format": "uuid"},
}
#: Of a 422 as FastAPI tells it, which our problem handlers never send.
_SCHEMAS_OF_FASTAPI: Final = ("HTTPValidationError", "ValidationError")


def openapi_document(app: FastAPI, routers: Iterable[APIRouter]) -> dict[str, Any]:
    """The document of an application that is made of these routers' guarded routes."""
    document = deepcopy(app.openapi())
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _SCHEMAS_OF_FASTAPI:
        schemas.pop(name, None)
    schemas.update(problem.pop("$defs") | {"Problem": problem})
    components["securitySchemes"] = {_TOKEN: _TOKEN_SCHEME}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                for method in route.methods or ():
                    _complete(document["paths"][route.path_format][method.lower()], guard_of(route.endpoint))
    return document


def _complete(operation: dict[str, Any], guard: Guard | None) -> None:
    """Write down what the guard asks for and what every route of its kind can answer."""
    parameters = [_as_sent(each) for each in operation.get("parameters", ())]
    statuses: set[HTTPStatus] = set()
    if not isinstance(guard, Public):
        operation["security"] = [{_TOKEN: []}]
        statuses |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE}
    if isinstance(guard, ActiveMember | CompanyAdmin | Permission):
        parameters.append(_COMPANY_PARAMETER)
        statuses |= {HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY}
    if isinstance(guard, PlatformAdmin):
        statuses.add(HTTPStatus.FORBIDDEN)
    if parameters:
        operation["parameters"] = parameters
    if parameters or "requestBody" in operation:
        statuses.add(HTTPStatus.UNPROCESSABLE_ENTITY)
    if "requestBody" in operation:
        statuses.add(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    for status, told in problem_statuses(*statuses).items():
        # In place of FastAPI's own 422 too.
        operation["responses"][str(int(status))] = told


def _as_sent(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter is text or is not there: what a handler takes as None nobody can send as null."""
    schema = dict(parameter["schema"])
    kinds = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    schema = {**kinds[0], **schema} if len(kinds) == 1 else {**schema, **({"anyOf": kinds} if kinds else {})}
    is_needed = schema.pop(NEEDED_HEADER, False)
    return {**parameter, "required": parameter["required"] or is_needed, "schema": schema}
