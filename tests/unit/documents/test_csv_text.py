"""What goes out as CSV harms no spreadsheet, and comes in again as it was."""

import csv
import io
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.documents.csv_text import Cell, CsvMalformedError, csv_bytes, csv_rows

#: What a spreadsheet would run: the beginnings OWASP names.
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0"]
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


async def written(rows: Sequence[Sequence[Cell]]) -> bytes:
    async def each() -> AsyncIterator[Sequence[Cell]]:
        for row in rows:
            yield row

    return b"".join([piece async for piece in csv_bytes(["a", "b"], each())])


@pytest.mark.parametrize("text", FORMULAS)
async def test_a_formula_is_text_to_a_spreadsheet(text: str) -> None:
    content = (await written([(text, "")])).decode()
    assert list(csv.reader(io.StringIO(content, newline=""))) == [["a", "b"], [f"'{text}", ""]]


async def test_numbers_are_no_text_and_stay_what_they_are() -> None:
    assert await written([(Decimal("-12.50"), -3), ("-3", Decimal("1E+3"))]) == b"a,b\r\n-12.50,-3\r\n'-3,1000\r\n"


async def test_days_and_times_are_written_as_iso_8601_says() -> None:
    noon = datetime(2026, 5, 21, 12, tzinfo=UTC)
    assert await written([(noon.date(), noon)]) == b"a,b\r\n2026-05-21,2026-05-21T12:00:00+00:00\r\n"


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
async def test_what_goes_out_comes_in_again_as_it_was_and_no_cell_begins_a_formula(rows: list[tuple[str, str]]) -> None:
    content = await written(rows)
    assert [tuple(row) for _, row in csv_rows(io.BytesIO(content))] == [("a", "b"), *rows]
    for row in csv.reader(io.StringIO(content.decode(), newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


async def test_lines_end_as_rfc_4180_says_and_text_is_utf_8() -> None:
    assert await written([("Łódź", 'a "b", c')]) == 'a,b\r\nŁódź,"a ""b"", c"\r\n'.encode()


def test_rows_are_numbered_as_a_spreadsheet_does_and_a_mark_before_utf_8_is_no_cell() -> None:
    content = b'\xef\xbb\xbfa,b\r\n1,"two\nlines"\r\n3,4\r\n'
    assert list(csv_rows(io.BytesIO(content))) == [(1, ["a", "b"]), (2, ["1", "two\nlines"]), (3, ["3", "4"])]


@pytest.mark.parametrize(("content", "row"), [(b'a\r\n"x"y\r\n', 2), (b'a\r\n"x', 2), (b"a\xff", 1)])
def test_what_is_no_csv_says_where(content: bytes, row: int) -> None:
    with pytest.raises(CsvMalformedError) as refused:
        list(csv_rows(io.BytesIO(content)))
    assert refused.value.row == row


async def test_a_long_table_is_never_whole_in_memory() -> None:
    async def rows() -> AsyncIterator[Sequence[Cell]]:
        for number in range(20_000):
            yield number, "x" * 100

    tracemalloc.start()
    try:
        sizes = [len(piece) async for piece in csv_bytes(["number", "text"], rows())]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 2_000_000
    assert peak_bytes < 1_000_000
