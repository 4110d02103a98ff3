"""Cursors, without a database; tests/integration/test_paging.py walks through lists."""

import base64
import json
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.paging import CursorInvalidError, _cursor, _read_cursor

VALUES = (
    st.integers(-(2**63) + 1, 2**63 - 1)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
    | st.uuids()
)


def sent(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()


ID = "01971a2b-3c4d-7e5f-8a9b-0c1d2e3f4a5b"


@given(VALUES, st.uuids())
def test_a_cursor_says_where_its_page_ended(value: Any, row_id: UUID) -> None:
    cursor = _cursor("-created", value, row_id)
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert _read_cursor(cursor, "-created", type(value)) == (value, row_id)
    with pytest.raises(CursorInvalidError):
        _read_cursor(cursor, "created", type(value))


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_whatever_is_sent_is_refused_and_fails_nothing(cursor: str) -> None:
    for kind in (int, str, date, datetime, UUID):
        with pytest.raises(CursorInvalidError):
            _read_cursor(cursor, "created", kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 2**63),
        (int, True),
        (int, 1.5),
        (int, "1"),
        (int, None),
        (str, 1),
        (str, "\0"),
        (str, "\ud800"),
        (date, "2026-02-30"),
        (date, 5),
        (datetime, "2026-05-21T09:00:00"),
        (datetime, "0001-01-01T00:00:00+14:00"),
        (datetime, "2026-05-21T09:00:00+02:00"),
        (UUID, "x"),
        (UUID, 7),
        (UUID, ["a"]),
    ],
)
def test_a_value_the_database_would_stumble_over_is_refused(kind: type, value: Any) -> None:
    with pytest.raises(CursorInvalidError):
        _read_cursor(sent("created", value, ID), "created", kind)


@pytest.mark.parametrize(
    "parts", [(), ("created",), ("created", 1), ("created", 1, ID, 1), ("created", 1, "x"), ("created", 1, None)]
)
def test_a_cursor_of_another_shape_is_refused(parts: tuple[Any, ...]) -> None:
    with pytest.raises(CursorInvalidError):
        _read_cursor(sent(*parts), "created", int)


def test_a_deeply_nested_cursor_is_refused() -> None:
    nested = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    with pytest.raises(CursorInvalidError):
        _read_cursor(nested, "created", int)
