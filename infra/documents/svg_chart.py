"""Bars as an SVG picture: text and shapes, no script, no address, nothing that is loaded from elsewhere.

A program that reads to people reads its title and its description; each bar has its own. Every text is escaped by the
writer of XML, so what a picture is made of can hold anything.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from xml.etree import ElementTree as ET

MEDIA_TYPE: Final = "image/svg+xml"

_NAMESPACE: Final = "http://www.w3.org/2000/svg"
_WIDTH: Final = 960
_MARGIN: Final = 24
_TITLE_HEIGHT: Final = 48
_PANEL_HEIGHT: Final = 240
_BARS_HEIGHT: Final = 150
_HEADING_HEIGHT: Final = 32
_BAR_SHARE: Final = Decimal("0.7")
#: What a label and an amount need, so that none is written over the next.
_LABEL_WIDTH: Final = 52
_AMOUNT_WIDTH: Final = 72
_INK: Final = "#1b1f24"
_FILL: Final = "#2f6f9f"


@dataclass(frozen=True)
class Bar:
    """`size` is how far it goes, `text` what it says of that: an amount with its currency."""

    label: str
    size: Decimal
    text: str


@dataclass(frozen=True)
class Panel:
    """Bars that may be compared: of one unit. None is below zero."""

    heading: str
    bars: Sequence[Bar]


def bar_chart(title: str, description: str, panels: Sequence[Panel]) -> bytes:
    """The picture, its panels one below the other, each with a scale of its own."""
    height = _TITLE_HEIGHT + _PANEL_HEIGHT * max(1, len(panels))
    root = ET.Element(
        "svg",
        {
            "xmlns": _NAMESPACE,
            "viewBox": f"0 0 {_WIDTH} {height}",
            "width": str(_WIDTH),
            "height": str(height),
            "role": "img",
            "aria-labelledby": "title description",
            "font-family": "sans-serif",
            "font-size": "12",
            "fill": _INK,
        },
    )
    _text(root, "title", title, id="title")
    _text(root, "desc", description, id="description")
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    _label(root, title, _MARGIN, 30, size=18)
    if not panels:
        _label(root, description, _MARGIN, _TITLE_HEIGHT + _HEADING_HEIGHT)
    for place, panel in enumerate(panels):
        _draw(root, panel, _TITLE_HEIGHT + place * _PANEL_HEIGHT)
    drawn: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return drawn


def _draw(root: ET.Element, panel: Panel, top: int) -> None:
    group = ET.SubElement(root, "g", {"role": "list", "aria-label": _readable(panel.heading)})
    _label(group, panel.heading, _MARGIN, top + 14, size=14)
    floor = top + _HEADING_HEIGHT + _BARS_HEIGHT
    axis = {"x1": _MARGIN, "x2": _WIDTH - _MARGIN, "y1": floor, "y2": floor}
    ET.SubElement(group, "line", {name: str(value) for name, value in axis.items()} | {"stroke": _INK})
    largest = max((bar.size for bar in panel.bars), default=Decimal(0)) or Decimal(1)
    step = Decimal(_WIDTH - 2 * _MARGIN) / max(1, len(panel.bars))
    bars_per_label = math.ceil(_LABEL_WIDTH / step)
    for place, bar in enumerate(panel.bars):
        left = _MARGIN + step * place
        tall = bar.size * (_BARS_HEIGHT - 20) / largest
        item = ET.SubElement(group, "g", {"role": "listitem"})
        _text(item, "title", f"{bar.label}: {bar.text}")
        shape = {"x": left + step * (1 - _BAR_SHARE) / 2, "y": floor - tall, "width": step * _BAR_SHARE, "height": tall}
        drawn = {name: f"{value:.2f}" for name, value in shape.items()}
        ET.SubElement(item, "rect", drawn | {"fill": _FILL})
        middle = f"{left + step / 2:.2f}"
        if place % bars_per_label == 0:
            _label(item, bar.label, middle, floor + 16, anchor="middle", size=10)
        if bar.size and step >= _AMOUNT_WIDTH:
            _label(item, bar.text, middle, f"{floor - tall - 4:.2f}", anchor="middle", size=9)


def _label(parent: ET.Element, text: str, x: int | str, y: int | str, *, anchor: str = "start", size: int = 12) -> None:
    _text(parent, "text", text, x=str(x), y=str(y), **{"text-anchor": anchor, "font-size": str(size)})


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = _readable(text)


def _readable(text: str) -> str:
    """XML has no way to write a control character, not even escaped."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
