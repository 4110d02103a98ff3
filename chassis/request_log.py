"""One log line and one count per request, a request id on every answer, and a last net under every handler (002 §12,
design §5).
"""

from http import HTTPStatus
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.metrics import RequestCounts
from chassis.problems import problem_response, unexpected_problem
from chassis.request import record_of

_log = structlog.get_logger("kisum.request")

_HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]


class RequestLog:
    """Pure ASGI; the outermost layer of every service."""

    def __init__(self, app: ASGIApp, *, service: str, counts: RequestCounts) -> None:
        self._app = app
        self._service = service
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = record_of(scope)
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                added = [header for header in _HEADERS if header[0] not in present]
                request_id = (b"kisum-request-id", record.request_id.encode())
                message = {**message, "headers": [*message["headers"], *added, request_id]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            _log.exception("request failed unexpectedly", service=self._service, request_id=record.request_id)
            if status is not None:
                raise  # The answer has begun: only breaking the connection tells the caller that it is not whole.
            await problem_response(scope, unexpected_problem())(scope, receive, send_with_headers)
        finally:
            self._write(scope, status)

    def _write(self, scope: Scope, status: int | None) -> None:
        record = record_of(scope)
        self._counts.note(status=status, reason=record.reason, is_admitted=record.access is not None)
        _log.info(
            "request",
            service=self._service,
            request_id=record.request_id,
            user_id=None if record.identity is None else record.identity.user_text,
            company_id=None if record.company_id is None else str(record.company_id),
            endpoint=record.endpoint or "unknown",
            method=scope["method"],
            action=record.action,
            status=status,
            result=_result(status),
            reason=record.reason,
            revision=record.access.revision if record.access else None,
            age_seconds=record.access.age_seconds if record.access else None,
        )


def _result(status: int | None) -> str:
    """The four words an operator searches for."""
    if status is None:
        return "failed"
    if status < HTTPStatus.BAD_REQUEST:
        return "done"
    return "refused" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "failed"
