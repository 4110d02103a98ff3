"""What is published in place of a state the log refuses: readers then answer 503 for its subject, never an old yes."""

import json
from typing import Any, get_args, get_origin

from contracts.payload import OpenStatus, Payload
from contracts.topics import PAYLOADS
from infra.outbox.store import Row

_EMPTY: dict[Any, Any] = {tuple: [], list: [], dict: {}}


def unknown_state_of(row: Row) -> Row:
    """The same revision of the same key, with the status `unknown` and nothing else in it.

    A payload without a status of its own has no such form: its data is left out (WithheldStateError), which puts the
    subject into quarantine at every reader that does not know the state of this revision already.
    """
    document = json.loads(row.value)
    document["data"] = _unknown(PAYLOADS[document["type"]], document["data"])
    return row._replace(value=json.dumps(document, separators=(",", ":")).encode())


def _unknown(payload: type[Payload], data: dict[str, Any]) -> dict[str, Any]:
    fields = payload.model_fields
    statuses = {name for name, field in fields.items() if _is_status(field.annotation)}
    if not statuses:
        return {}
    found: dict[str, Any] = {}
    for name, field in fields.items():
        if name in statuses:
            found[name] = "unknown"
        elif type(None) in get_args(field.annotation):
            found[name] = None
        elif (origin := get_origin(field.annotation)) in _EMPTY:
            found[name] = _EMPTY[origin]
        else:
            found[name] = False if field.annotation is bool else data[name]
    return found


def _is_status(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, OpenStatus) and "UNKNOWN" in annotation.__members__
