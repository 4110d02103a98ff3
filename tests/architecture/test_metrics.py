"""Metrics are named as Prometheus asks, and whoever is woken by one finds what to do."""

import re
from pathlib import Path
from typing import Final

import pytest

from chassis.metrics import METRICS, Metric
from tests.harness.monitoring import alerts, asked_for, expressions

PAGE: Final = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
_LABELS: Final = {"status", "reason", "owner", "topic", "partition", "kind", "consumer", "outcome"}
_FOREIGN: Final = {"up": {"job", "instance"}, "process_resident_memory_bytes": {"job", "instance"}}
#: Prometheus gives these to what a histogram or a summary is made of, and `_info` to a constant.
_RESERVED: Final = ("_count", "_sum", "_bucket", "_created", "_info")
#: Seconds and bytes are what is measured in; whatever is of another size is told in them.
_NO_BASE_UNIT: Final = r"_(milliseconds?|ms|micro\w+|minutes?|hours?|days?|kilo\w+|kb|mega\w+|mb|percent)(_|$)"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_asks(metric: Metric) -> None:
    assert re.fullmatch(r"kisum(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not metric.name.endswith(_RESERVED)
    assert not re.search(_NO_BASE_UNIT, metric.name)
    assert ("_age" in metric.name) == metric.name.endswith("_seconds"), "a duration says its unit"
    assert set(metric.labels) <= _LABELS, "a label has few values, known beforehand"
    assert metric.description.endswith(".")


def test_every_metric_is_described_as_it_is() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    rows = re.findall(r"^\| (kisum_\w+) \| (\w+) \| ([\w, ]*?) ?\| \S", PAGE, re.MULTILINE)
    assert rows == [(metric.name, metric.kind, ", ".join(metric.labels)) for metric in METRICS]


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    rules = alerts()
    rows = re.findall(r"^\| (Kisum\w+) \| (\w+) \| \S.*? \| \S.*? \|$", PAGE, re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in rules]
    assert {severity for _, severity in rows} == {"critical", "warning"}
    assert all(rule["annotations"]["summary"] for rule in rules)


@pytest.mark.parametrize(("name", "expression"), expressions().items(), ids=lambda given: given.partition("(")[0])
def test_an_expression_asks_for_what_there_is(name: str, expression: str) -> None:
    known = {metric.name: {"service", *metric.labels} for metric in METRICS} | _FOREIGN
    asked = list(asked_for(expression))
    assert asked
    for metric, labels in asked:
        assert metric in known, f"{name} asks for {metric}, which nobody gives out"
        assert labels <= known[metric], f"{name} asks for a label that {metric} does not have"


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('sum by (service) (rate(kisum_x_total{a=~"b", c!="d"}[5m])) > 0', [{"a", "c"}, {"service"}]),
        ("up == 0", [set()]),
        ("max by (service, kind) (kisum_y) / kisum_z", [set(), set(), {"service", "kind"}]),
    ],
)
def test_what_an_expression_asks_for_is_found(expression: str, found: list[set[str]]) -> None:
    """Else the test above would prove nothing."""
    assert [set(labels) for _, labels in asked_for(expression)] == found


def test_what_is_shown_and_alerted_on_is_all_there_is() -> None:
    used = {metric for expression in expressions().values() for metric, _ in asked_for(expression)}
    assert {metric.name for metric in METRICS} <= used, "what nobody looks at need not be measured"
