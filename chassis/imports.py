"""How a table comes in as CSV: read row by row, all of it or nothing, and every bad row named.

A row is read by the model that the same thing has as JSON, so both take the same and refuse the same in the same words.
The table lies in a file without a name until it is read; it is read twice, first to find what is wrong with it and
then, if nothing is, to take it in. No more than a row is in memory at a time.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import IO, Final, Generic, TypeVar

from pydantic import ValidationError

from chassis.routing import RequestModel, ResponseModel
from chassis.uploads import Upload
from contracts.errors import DomainError, Kind
from contracts.problems import FieldFault, ProblemCode
from infra.documents.csv_text import CsvMalformedError, csv_rows

#: So many are named; who has more of them has one reason for many.
FAULTS_MAX: Final = 100
#: Others are let run after so many rows, each of some microseconds.
_ROWS_AT_A_STRETCH: Final = 100
#: Stands for the cells beyond the header's, which have no column; no header may have a column of this name.
_BEYOND: Final = ""
_COLUMN_LENGTH_MAX: Final = 64

Model = TypeVar("Model", bound=RequestModel)
Row = TypeVar("Row")


class RowsRefusedError(DomainError):
    """What is wrong with a table. The pointer of each fault is `/row/column`, the rows as a spreadsheet counts them."""

    kind = Kind.INVALID
    code = ProblemCode.ROWS_REFUSED.value
    title = "Rows of the table break a rule"

    def __init__(self, faults: Sequence[FieldFault], detail: str | None = None) -> None:
        super().__init__(detail or "Nothing was taken in.")
        self.errors = tuple(faults)


class ImportBody(ResponseModel):
    """How many rows the table has, and how many of them were taken in: all, or none of a dry run."""

    rows: int
    imported: int


@dataclass(frozen=True)
class Table(Generic[Model, Row]):
    """A table that came in, its rows still unread.

    :param model: what each row is as JSON; the columns are its fields, in any order.
    :param row_of: what the operation takes. Raises DomainErrors whose pointers name a column.
    """

    file: IO[bytes]
    sha256: str
    model: type[Model]
    row_of: Callable[[Model], Row]

    async def check(self, judge: Callable[[int, Row], None]) -> int:
        """Read all of it; how many rows there are.

        `judge` gets each row and its number, and raises DomainErrors too: one that says which value it is about is
        noted, another is raised as it is. Raises RowsRefusedError.
        """
        faults: list[FieldFault] = []
        bad_rows = rows = 0
        try:
            with closing(self._values()) as found:
                for number, values in found:
                    rows += 1
                    if rows % _ROWS_AT_A_STRETCH == 0:
                        await asyncio.sleep(0)
                    own = self._faults_of(number, values, judge)
                    bad_rows += bool(own)
                    faults += own[: FAULTS_MAX - len(faults)]
        except CsvMalformedError as error:
            raise RowsRefusedError([_fault(error.row, "", "csv_malformed", error.why)]) from error
        if rows == 0:
            raise RowsRefusedError([_fault(1, "", "rows_missing", "It has no row below its header.")])
        if faults:
            raise RowsRefusedError(faults, f"{bad_rows} of {rows} rows break a rule. Nothing was taken in.")
        return rows

    async def rows(self) -> AsyncIterator[Row]:
        """Each row, of a table that was checked."""
        with closing(self._values()) as found:
            for number, (_, values) in enumerate(found, 1):
                if number % _ROWS_AT_A_STRETCH == 0:
                    await asyncio.sleep(0)
                yield self.row_of(self.model.model_validate(values))

    def _values(self) -> Generator[tuple[int, dict[str, str]], None, None]:
        """The cells of each row by their columns; an empty cell is one that is not there. Raises RowsRefusedError."""
        self.file.seek(0)
        with closing(csv_rows(self.file)) as table:
            _, header = next(table, (1, []))
            self._check_header(header)
            for number, cells in table:
                if len(cells) > len(header):
                    yield number, {_BEYOND: cells[len(header)]}
                elif cells:
                    pairs = zip(header, cells, strict=False)
                    yield number, {column: cell for column, cell in pairs if cell}

    def _check_header(self, header: Sequence[str]) -> None:
        fields = self.model.model_fields
        missing = [name for name, field in fields.items() if field.is_required() and name not in header]
        faults = [_fault(1, name, "column_missing", f"There has to be a column {name}.") for name in missing]
        for column in dict.fromkeys(header):
            if len(faults) >= FAULTS_MAX:
                break
            if column not in fields:
                known = ", ".join(fields)
                faults.append(_fault(1, column, "column_unknown", f"The columns are {known}."))
            elif header.count(column) > 1:
                faults.append(_fault(1, column, "column_repeated", "It is there more than once."))
        if faults:
            raise RowsRefusedError(faults[:FAULTS_MAX])

    def _faults_of(self, number: int, values: dict[str, str], judge: Callable[[int, Row], None]) -> list[FieldFault]:
        if _BEYOND in values:
            return [_fault(number, _BEYOND, "row_too_long", "It has more cells than the header.")]
        try:
            judge(number, self.row_of(self.model.model_validate(values)))
        except ValidationError as error:
            return [
                _fault(number, ".".join(str(step) for step in each["loc"]), each["type"], each["msg"])
                for each in error.errors(include_url=False, include_input=False)
            ]
        except DomainError as error:
            if error.pointer is None:
                raise
            return [row_fault(number, error)]
        return []


@asynccontextmanager
async def incoming(
    upload: Upload, model: type[Model], row_of: Callable[[Model], Row]
) -> AsyncIterator[Table[Model, Row]]:
    """The table a request sends; gone when the block ends. Raises NotWhatItSaysError or HTTPException."""
    digest = hashlib.sha256()
    # Without a name: whatever happens to this process, nothing of it is left.
    with tempfile.TemporaryFile() as file:
        async for chunk in await upload.begin():
            digest.update(chunk)
            file.write(chunk)
        yield Table(file, digest.hexdigest(), model, row_of)


def row_fault(number: int, error: DomainError, *, column: str | None = None) -> FieldFault:
    """A refusal of one row's value, by the number of the row; of the column it points to, unless one is named."""
    return _fault(number, column or (error.pointer or "").removeprefix("/"), error.code, error.detail)


def _fault(number: int, column: str, rule: str, detail: str) -> FieldFault:
    escaped = column[:_COLUMN_LENGTH_MAX].replace("~", "~0").replace("/", "~1")
    return FieldFault(pointer=f"/{number}/{escaped}".removesuffix("/"), rule=rule, detail=detail)
