import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.downloads import disposition


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_comes_through_whole_and_ends_no_header(name: str) -> None:
    header = disposition("attachment", name)
    assert header.isascii()
    assert header.isprintable()
    found = re.fullmatch(r'attachment; filename="([^"\\%]*)"; filename\*=UTF-8\'\'([A-Za-z0-9._~%-]*)', header)
    assert found
    assert unquote(found[2]) == name


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("bill.pdf", "attachment; filename=\"bill.pdf\"; filename*=UTF-8''bill.pdf"),
        ('a"; b=c', "attachment; filename=\"a_; b=c\"; filename*=UTF-8''a%22%3B%20b%3Dc"),
        ("Łódź\r\nX: y", "attachment; filename=\"__d___X: y\"; filename*=UTF-8''%C5%81%C3%B3d%C5%BA%0D%0AX%3A%20y"),
    ],
)
def test_a_name_is_never_read_as_more_than_a_name(name: str, header: str) -> None:
    assert disposition("attachment", name) == header
