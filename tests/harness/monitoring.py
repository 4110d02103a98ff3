"""The files that Prometheus and Grafana are given, as far as they speak of metrics."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

_DEPLOY: Final = Path(__file__).parents[2] / "infra" / "deploy"
_SELECTOR: Final = re.compile(r"\b((?:kisum|process)_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING: Final = re.compile(r"\bby \(([^)]*)\) \(((?:[^()]|\([^()]*\))*)\)")


def alerts() -> list[dict[str, Any]]:
    """The rules, as they are read from the file."""
    groups = yaml.safe_load((_DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> dict[str, str]:
    """Every PromQL expression, by the alert or the panel it is of."""
    dashboard = json.loads((_DEPLOY / "grafana" / "kisum.json").read_text())
    shown = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }
    return shown | {rule["alert"]: rule["expr"] for rule in alerts()}


def asked_for(expression: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Each metric an expression names, with the labels it asks for: by a matcher, or by what it is grouped by."""
    for name, matchers in _SELECTOR.findall(expression):
        yield name, frozenset(_MATCHER.findall(matchers))
    for labels, grouped in _GROUPING.findall(expression):
        for name, _ in _SELECTOR.findall(grouped):
            yield name, frozenset(label.strip() for label in labels.split(","))
