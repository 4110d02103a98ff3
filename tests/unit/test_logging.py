"""A log line is one line of ASCII that says what the standard library's JSON would."""

import json
from typing import Any

import pytest

from infra.telemetry.logging import _json_text


class Thing:
    def __repr__(self) -> str:
        return "a thing"


@pytest.mark.parametrize(
    "event",
    [
        {"event": "request", "status": 200, "age_seconds": 0.25, "reason": None, "is_done": True, "at": "2026-05-21"},
        {"event": 'quotes " and \\', "lines": "one\ntwo\r\t\0"},
        {"event": "Grüße, 💡", "line separators": "\u0085\u2028"},
        {"event": "half of a pair \ud83d"},
        {"event": "request", "thing": Thing(), "nested": [{"exc_type": "KeyError", "frames": ()}]},
        {"event": "a number beyond 64 bits", "number": 2**70},
    ],
    ids=lambda event: ascii(event["event"]),
)
def test_a_line_says_what_the_standard_library_would(event: dict[str, Any]) -> None:
    line = _json_text(event, default=repr)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line) == json.loads(json.dumps(event, default=repr))
