"""Tables as CSV (RFC 4180, UTF-8), in both directions and one row at a time.

A spreadsheet takes a cell that begins with = + - @, a tab or a carriage return for a formula, and runs it. Text that
begins so goes out behind an apostrophe, and what comes in behind one loses it: a table that goes out and comes in again
is the same. Numbers are no text, and stay what they are.
"""

import csv
import io
import re
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import IO, Final
from uuid import UUID

MEDIA_TYPE: Final = "text/csv; charset=utf-8; header=present"
Cell = str | int | Decimal | date | UUID | None

_CHUNK_CHARACTERS: Final = 64 * 1024
#: Of one row, its line breaks included: what is longer is no row of anything.
_ROW_CHARACTERS_MAX: Final = 64 * 1024
#: With the apostrophes before it: a text that has one already is told from one that was given one.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_FORMULA_BEHIND_APOSTROPHE: Final = re.compile(r"'+[=+\-@\t\r]")


class CsvMalformedError(ValueError):
    """What came is no CSV from `row` on."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(f"row {row}: {why}")
        self.row = row
        self.why = why


async def csv_bytes(header: Sequence[str], rows: AsyncIterator[Sequence[Cell]]) -> AsyncIterator[bytes]:
    """The table in pieces of some 64 KiB; no more of it is in memory at a time."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    async for row in rows:
        writer.writerow([_written(cell) for cell in row])
        if text.tell() >= _CHUNK_CHARACTERS:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def csv_rows(file: IO[bytes]) -> Generator[tuple[int, list[str]], None, None]:
    """Each row with its number as a spreadsheet counts: the header is 1. Raises CsvMalformedError.

    Without the mark some programs put before UTF-8. Closed by whoever does not read it to its end.
    """
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    number = characters = 0

    def bounded() -> Iterator[str]:
        nonlocal characters
        while line := lines.readline(_ROW_CHARACTERS_MAX + 1):
            characters += len(line)
            if characters > _ROW_CHARACTERS_MAX:
                raise csv.Error(f"a row of more than {_ROW_CHARACTERS_MAX} characters")
            yield line

    try:
        for number, row in enumerate(csv.reader(bounded(), strict=True), 1):
            yield number, [_read(cell) for cell in row]
            characters = 0
    except csv.Error as error:
        raise CsvMalformedError(number + 1, str(error)) from error
    except UnicodeDecodeError as error:
        raise CsvMalformedError(number + 1, "this is not UTF-8") from error
    finally:
        # The file stays the caller's: a wrapper that is thrown away would close it.
        lines.detach()


def _written(cell: Cell) -> str | int:
    if cell is None:
        return ""
    if isinstance(cell, int):
        return cell
    if isinstance(cell, Decimal):
        return f"{cell:f}"
    text = cell.isoformat() if isinstance(cell, date) else str(cell)
    return f"'{text}" if _FORMULA.match(text) else text


def _read(cell: str) -> str:
    return cell[1:] if _FORMULA_BEHIND_APOSTROPHE.match(cell) else cell
