"""A heading and a table as a PDF, over as many pages as it takes; every page has its number and the table's head.

Its font is one every reader of PDF has, and knows the letters of Western Europe; another letter is written as "?".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fpdf import FPDF
from fpdf.enums import XPos, YPos

MEDIA_TYPE: Final = "application/pdf"
_FONT: Final = "Helvetica"
_ENCODING: Final = "cp1252"


@dataclass(frozen=True)
class Column:
    """`share` is how wide it is beside the others; numbers stand at the right."""

    heading: str
    share: int = 1
    align: Literal["L", "R"] = "L"


class _Page(FPDF):
    def footer(self) -> None:
        self.set_y(-12)
        self.set_font(_FONT, size=8)
        self.cell(0, 8, f"{self.page_no()} / {{nb}}", align="R")


def table_document(
    heading: str, note: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, made_at: datetime
) -> bytes:
    """The document. `note` stands below the heading and says what the table is of."""
    document = _Page(orientation="landscape", format="A4")
    document.core_fonts_encoding = _ENCODING
    document.set_title(_known(heading))
    document.set_lang("en")
    document.set_creation_date(made_at)
    document.add_page()
    document.set_font(_FONT, "B", 16)
    document.cell(0, 10, _known(heading), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    document.set_font(_FONT, size=9)
    document.multi_cell(0, 5, _known(note), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    document.ln(3)
    with document.table(
        col_widths=tuple(column.share for column in columns),
        text_align=tuple(column.align for column in columns),
        line_height=5,
    ) as table:
        for cells in ([column.heading for column in columns], *rows):
            row = table.row()
            for cell in cells:
                row.cell(_known(cell))
    return bytes(document.output())


def _known(text: str) -> str:
    printable = "".join(each if each.isprintable() else "?" for each in text)
    return printable.encode(_ENCODING, "replace").decode(_ENCODING)
