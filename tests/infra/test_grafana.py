"""Dashboard and alerts: metrics and labels that the code has, in well-formed PromQL."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.metrics import GAUGES, PREFIX

FOLDER = Path(__file__).parents[2] / "infra" / "grafana"
RAYS_LABELS = {"SessionName", "WorkerId", "NodeAddress", "Version", "Component"}
FUNCTIONS = {"time", "max", "min", "avg", "max_over_time", "sum", "count"}
SELECTOR = re.compile(r"\b(ray_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'\s*(\w+)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"\s*')
REST = re.compile(
    r"\s+|\d+(\.\d+)?[smhd]?|[()\[\],]|[<>]=?|[=!]=|[-+*/]|\b(?:by|without|and|or|unless)\b|\w+"
)


def dashboard() -> dict:
    return json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))


def alerts() -> list[dict]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return group["rules"]


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in alerts())


def findings(expression: str) -> list[str]:
    """Return what is wrong with a PromQL expression, as far as can be told without its parser."""
    found, known = [], {}
    for name, inside in SELECTOR.findall(expression):
        gauge = GAUGES.get(name.removeprefix(PREFIX))
        if gauge is None:
            found.append(f"no metric {name}")
            continue
        known |= dict.fromkeys(gauge[1])
        matchers = [part for part in inside.split(",") if part]
        for part in matchers:
            match = MATCHER.fullmatch(part)
            if match is None or match[1] not in gauge[1]:
                found.append(f"matcher {part} of {name}")
    for listed in re.findall(r"\b(?:by|without) \(([^)]*)\)", expression):
        labels = {label.strip() for label in listed.split(",")}
        found += [f"no label {label}" for label in labels - set(known) - RAYS_LABELS]
    plain = SELECTOR.sub("1", expression)
    for function in re.findall(
        r"\b([a-z_]+) ?\(", re.sub(r"\b(?:by|without) \([^)]*\)", "", plain)
    ):
        if function not in FUNCTIONS:
            found.append(f"no function {function}")
    if REST.sub("", plain):
        found.append(f"not PromQL: {REST.sub('', plain)}")
    for left, right in ("()", "[]", "{}"):
        if expression.count(left) != expression.count(right):
            found.append(f"{left} without {right}")
    return found


@pytest.mark.parametrize("expression", list(expressions()))
def test_expressions(expression: str) -> None:
    assert findings(expression) == []


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("ray_reid_rounds", "no metric"),
        ('max by (run) (ray_reid_round{runs="a"})', "matcher"),
        ("max by (run) (ray_reid_round{run=a})", "matcher"),
        ("max by (view) (ray_reid_round)", "no label view"),
        ("max by (run) (ray_reid_round", "without"),
        ("maximum(ray_reid_round)", "no function"),
        ("ray_reid_round ; 1", "not PromQL"),
    ],
)
def test_each_fault_is_found(expression: str, says: str) -> None:
    assert any(says in line for line in findings(expression))


def test_every_metric_is_drawn() -> None:
    drawn = {
        name.removeprefix(PREFIX)
        for panel in dashboard()["panels"]
        for target in panel["targets"]
        for name, _ in SELECTOR.findall(target["expr"])
    }
    assert drawn == set(GAUGES)


def test_panels_and_alerts_say_what_they_are() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["description"] for panel in panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    for rule in alerts():
        assert {"alert", "expr", "for", "labels", "annotations"} == set(rule)
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_prometheus_reads_the_alerts() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    assert all((FOLDER / name).is_file() for name in config["rule_files"])
