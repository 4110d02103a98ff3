"""A picture is read aloud as well as seen, and is nothing but a picture."""

from decimal import Decimal
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.documents.svg_chart import Bar, Panel, bar_chart

SVG = "{http://www.w3.org/2000/svg}"
SHAPES = {"svg", "title", "desc", "g", "rect", "line", "text"}


def parsed(picture: bytes) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314 - it is our own


def chart(*texts: str) -> ET.Element:
    title, heading, label = texts
    bars = [Bar(label, Decimal("12.50"), "12.50 USD"), Bar("2026-06", Decimal(25), "25.00 USD")]
    return parsed(bar_chart(title, "What it shows", [Panel(heading, bars)]))


def test_it_has_a_title_a_description_and_a_text_for_each_bar() -> None:
    picture = chart("Spend by vendor", "USD", "2026-05")
    assert (picture.get("role"), picture.get("aria-labelledby")) == ("img", "title description")
    titles = [each.text for each in picture.iter(f"{SVG}title")]
    assert titles == ["Spend by vendor", "2026-05: 12.50 USD", "2026-06: 25.00 USD"]
    assert [each.text for each in picture.iter(f"{SVG}desc")] == ["What it shows"]


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    bars = [Decimal(each.get("height", "")) for each in chart("t", "h", "l").iter(f"{SVG}rect") if each.get("x")]
    assert bars[0] * 2 == bars[1]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"/><image href="x"/>', "]]>&#0;", "\x00\x1b"])
def test_what_it_is_made_of_is_only_ever_text(text: str) -> None:
    picture = chart(text, text, text)
    assert {each.tag.removeprefix(SVG) for each in picture.iter()} <= SHAPES
    assert not [name for each in picture.iter() for name in each.attrib if name.startswith("on") or "href" in name]


@given(st.text(), st.text(), st.text())
def test_any_text_makes_a_picture_that_can_be_read(title: str, heading: str, label: str) -> None:
    chart(title, heading, label)


def test_nothing_to_show_is_said_so() -> None:
    picture = parsed(bar_chart("Spend", "Nothing was spent.", []))
    assert "Nothing was spent." in [each.text for each in picture.iter(f"{SVG}text")]


def test_of_many_bars_only_some_are_written_under_and_all_are_read_aloud() -> None:
    bars = [Bar(f"bar {number}", Decimal(number), f"{number} USD") for number in range(1, 61)]
    picture = parsed(bar_chart("Spend", "What it shows", [Panel("USD", bars)]))
    assert len(list(picture.iter(f"{SVG}text"))) == 2 + 15
    assert len(list(picture.iter(f"{SVG}title"))) == 1 + 60
