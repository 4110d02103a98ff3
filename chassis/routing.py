"""Routes that pass their guard before anything of theirs runs."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Self, TypeVar
from uuid import UUID

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from chassis.request import RequestRecord, record_of
from middleware.chain import pass_guard
from middleware.guards import guard_of

#: The revision of what a write changed, topic:key:epoch:version (design §5, Read your own write).
REVISION_HEADER: Final = "Kisum-Revision"
#: Of a body that is read as a whole. One that is read piece by piece says its own limit, with `takes_bytes`.
_BODY_BYTES_MAX: Final = 1024 * 1024
_BODY_BYTES_MAX_ATTRIBUTE: Final = "__kisum_body_bytes_max__"
#: Marks a header without which a request is refused by its handler, with more to say than that it is missing: the
#: document tells it as required.
NEEDED_HEADER: Final = "x-kisum-needed"
_FIRST_PRINTABLE: Final = 0x20
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT: Final = re.compile(_DATE.pattern + r"T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})")
#: A day before it is a slip of the pen, and a table of one row a month since year 1 would lock thousands of months.
_FIRST_DAY: Final = date(1900, 1, 1)
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class RouteWithoutGuardError(Exception):
    """A service declares a route and not who may call it; it must not start."""


class GuardedRoute(APIRoute):
    """A route whose guard is judged in plain ASGI, before the body is read or a dependency is resolved."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        record.endpoint = self.path
        record.action = self.name
        required = guard_of(self.endpoint)
        if required is None:
            raise RouteWithoutGuardError(self.path)
        await pass_guard(required, scope, scope["app"].state.chain, record)
        bytes_max = getattr(self.endpoint, _BODY_BYTES_MAX_ATTRIBUTE, _BODY_BYTES_MAX)
        await super().handle(scope, _limited(scope, receive, bytes_max), _judged(record, send))


def takes_bytes(bytes_max: int) -> Callable[[Endpoint], Endpoint]:
    """Declare how much a route's body may be, where that is not 1 MiB: written beside its guard.

    Its handler reads the body in pieces and keeps none of them: chassis.uploads.
    """

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _BODY_BYTES_MAX_ATTRIBUTE, bytes_max)
        return endpoint

    return declare


def _judged(record: RequestRecord, send: Send) -> Send:
    """Let no answer out whose route has a scope and did not judge it."""

    async def send_judged(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] < HTTPStatus.BAD_REQUEST:
            record.assert_scope_judged()
        await send(message)

    return send_judged


def _limited(scope: Scope, receive: Receive, bytes_max: int) -> Receive:
    """Refuse a body over the limit: by its announced length before a byte is read, else when it gets there.

    FastAPI's own limit answers in plain text, past the problem handlers.
    """
    too_large = HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over {bytes_max} bytes")
    announced = Headers(scope=scope).get("content-length", "0")
    read_bytes = 0

    async def receive_limited() -> Message:
        nonlocal read_bytes
        if announced.isdecimal() and int(announced) > bytes_max:
            raise too_large
        message = await receive()
        read_bytes += len(message.get("body", b""))
        if read_bytes > bytes_max:
            raise too_large
        return message

    return receive_limited


def router(*, prefix: str, tag: str) -> APIRouter:
    """A resource's router: guarded routes under a service's route group. Each may be asked to be judged by no state
    older than one that the caller names, and so answers 400 where that is none.
    """
    return APIRouter(prefix=prefix, tags=[tag], route_class=GuardedRoute, responses=problem_statuses(400))


def refuse_unguarded(routers: Iterable[APIRouter]) -> None:
    """Raises RouteWithoutGuardError naming every route whose handler declares no guard."""
    bare = [
        f"{'|'.join(sorted(route.methods or ()))} {route.path}"
        for each in routers
        for route in each.routes
        if isinstance(route, APIRoute) and (not isinstance(route, GuardedRoute) or guard_of(route.endpoint) is None)
    ]
    if bare:
        raise RouteWithoutGuardError(f"No guard is declared for {', '.join(bare)}. Add @guard(...) over the handler.")


class RequestModel(BaseModel):
    """A request body: closed, strict about types, and never changed after it was read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, str_strip_whitespace=True)

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        _refuse_control_characters(value.get_secret_value() if isinstance(value, SecretStr) else value)
        return value


def _tell_no_defaults(schema: dict[str, Any]) -> None:
    for told in schema["properties"].values():
        told.pop("default", None)


class ChangesModel(RequestModel):
    """What is to be different of an object: a field that is left out stays, null takes a value away.

    Written before the model of what is made, `class ExpenseChanges(ChangesModel, NewExpense)`, it has that one's fields
    and rules. It needs none of them, and none has a default: to leave a field out is to say nothing of it.
    """

    model_config = ConfigDict(json_schema_extra=_tell_no_defaults)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for field in cls.model_fields.values():
            # Only so that it may be left out; nobody sees it.
            field.default = None
        cls.model_rebuild(force=True)

    def said(self) -> dict[str, Any]:
        """The fields that were not left out."""
        return self.model_dump(exclude_unset=True)


def _refuse_control_characters(value: Any) -> Any:
    # PostgreSQL stores no NUL, and no other control character belongs into a name or an address.
    if isinstance(value, str) and not value.isprintable() and any(ord(each) < _FIRST_PRINTABLE for each in value):
        raise PydanticCustomError("control_character", "No control characters are allowed")
    return value


#: Free text of a query or a path that PostgreSQL is asked with; in a body `RequestModel` sees to it.
PlainText = Annotated[str, AfterValidator(_refuse_control_characters)]


def _date(value: Any) -> Any:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise PydanticCustomError("date_text", "A date is written as 2026-05-21")
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise PydanticCustomError("date_text", "There is no such day") from None
    if day < _FIRST_DAY:
        raise PydanticCustomError("date_text", "Days are told from 1900 on")
    return day


def _identifier(value: Any) -> Any:
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise PydanticCustomError("id_text", "An id is a UUID, written in lowercase with hyphens")
    return UUID(value)


def _instant(value: Any) -> Any:
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise PydanticCustomError("instant_text", "A time is written with its offset: 2026-05-21T19:30:00Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("instant_text", "There is no such time") from None


#: JSON knows neither dates nor ids, and strict models take no text for them; these take the one way to write each.
DateText = Annotated[date, BeforeValidator(_date)]
#: A point in time; what the handler gets is in UTC.
InstantText = Annotated[datetime, BeforeValidator(_instant)]
IdText = Annotated[UUID, BeforeValidator(_identifier)]
#: Decimal text, such as "1234.50", for `Money.parse`: a JSON number would have been a float on its way.
AmountText = Annotated[
    str, Field(max_length=40, json_schema_extra={"pattern": r"^-?[0-9]+(\.[0-9]+)?$", "examples": ["1234.50"]})
]
#: ISO 4217, for `Money.parse`.
CurrencyText = Annotated[str, Field(max_length=3, json_schema_extra={"pattern": "^[A-Z]{3}$", "examples": ["USD"]})]


class ResponseModel(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    @classmethod
    def of(cls, row: Any, /, **made: Any) -> Self:
        """The body of an object: what is `made` for it, and all else as its row has it."""
        kept = {name: getattr(row, name) for name in cls.model_fields if name not in made}
        return cls.model_validate({**kept, **made})


def problem_statuses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare in OpenAPI which problems a route answers with."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "Problem", "content": content} for status in statuses}
