"""What a run tells Prometheus: names and labels as listed, and nothing without Ray."""

from typing import Any

import pytest

from cluster import metrics
from reid.types import Report

REPORT = Report(
    round=2,
    first_step=0,
    series={"lr": [0.1, 0.1]},
    health={"global": {"num_clusters": 7.0, "num_outliers": 1.0}},
    metrics={"mAP": 0.5},
    seconds={"train": 10.0, "cluster": 4.0},
    images_per_s=64.0,
    data_wait_s=2.5,
)


class Kept:
    """A gauge that keeps what it is set to."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.labels = name, set(tag_keys)

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == self.labels
        KEPT[self.name, *sorted(tags.values())] = value


KEPT: dict[tuple[str, ...], float] = {}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    monkeypatch.setattr("ray.util.metrics.Gauge", Kept)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    metrics._gauge.cache_clear()
    KEPT.clear()
    yield KEPT  # type: ignore[misc]
    metrics._gauge.cache_clear()


def test_a_report_is_shown(kept: dict[tuple[str, ...], Any]) -> None:
    metrics.show_report(REPORT, run="demo")
    assert kept[metrics.ROUND, "demo"] == 3
    assert kept[metrics.IMAGES_PER_S, "demo"] == 64
    assert kept[metrics.PART_SECONDS, "cluster", "demo"] == 4
    assert kept[metrics.DATA_WAIT, "demo"] == 0.25
    assert kept[metrics.SCORE, "demo", "mAP"] == 0.5
    assert kept[metrics.HEALTH, "demo", "global", "num_clusters"] == 7
    metrics.show_pool(num_actors=4, sendings=1)
    assert kept[metrics.POOL_ACTORS,] == 4
    assert {name for name, *_ in kept} == set(metrics.GAUGES)


def test_nothing_is_shown_without_ray(
    kept: dict[tuple[str, ...], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    metrics.show_report(REPORT, run="demo")
    assert kept == {}


def test_names_are_ones_that_prometheus_takes() -> None:
    for name, (description, labels) in metrics.GAUGES.items():
        assert name.isidentifier()
        assert description
        assert all(label.isidentifier() for label in labels)
