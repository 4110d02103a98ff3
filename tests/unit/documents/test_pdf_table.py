from datetime import UTC, datetime

from infra.documents.pdf_table import Column, table_document

COLUMNS = [Column("Vendor", 3), Column("Amount", 1, "R")]
MADE_AT = datetime(2026, 5, 21, tzinfo=UTC)


def test_a_long_table_goes_over_as_many_pages_as_it_takes() -> None:
    document = table_document("Spend", "2026", COLUMNS, [["one", "1.00"]] * 200, made_at=MADE_AT)
    assert document.startswith(b"%PDF-")
    assert document.count(b"/Type /Page\n") == document.count(b"/Contents") > 2


def test_the_same_table_is_the_same_document() -> None:
    made = {table_document("Spend", "2026", COLUMNS, [["a", "1.00"]], made_at=MADE_AT) for _ in range(2)}
    assert len(made) == 1


def test_no_text_is_too_strange_for_it() -> None:
    first, second, *_ = strange = ["Łódź 東京", "\x00 \u202e", "Müller & Söhne €"]
    document = table_document(first, second, COLUMNS, [[each, "1.00"] for each in strange], made_at=MADE_AT)
    assert document.endswith(b"%%EOF\n")
