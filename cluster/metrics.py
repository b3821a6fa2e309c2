"""What a running run tells Prometheus, through Ray's metrics: the one list of their names.

Ray puts `ray_` before each name and adds labels of its own, such as the node. All are gauges, and
vanish with the process that sets them. Without Ray nothing happens. `infra/grafana` draws them and
warns of them; a test holds its names to these.
"""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import ray

from reid.types import Report

PREFIX = "ray_"

ROUND = "reid_round"
LAST_REPORT = "reid_last_report_timestamp_seconds"
IMAGES_PER_S = "reid_images_per_second"
PART_SECONDS = "reid_part_seconds"
DATA_WAIT = "reid_data_wait_ratio"
SCORE = "reid_score_ratio"
HEALTH = "reid_cluster_health"
POOL_ACTORS = "reid_pool_actors"
POOL_SENDINGS = "reid_pool_sendings"

GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    ROUND: ("rounds finished", ("run",)),
    LAST_REPORT: ("when the run last reported, seconds since 1970", ("run",)),
    IMAGES_PER_S: ("images trained on a second, all workers together", ("run",)),
    PART_SECONDS: ("seconds of a part of the last round: extract, cluster, train", ("run", "part")),
    DATA_WAIT: ("share of training in which rank 0 had no batch, 0 to 1", ("run",)),
    SCORE: ("mAP, rank-1 and others on the target's test split, 0 to 1", ("run", "score")),
    HEALTH: ("num_clusters, num_outliers and others of a clustering", ("run", "view", "figure")),
    POOL_ACTORS: ("clustering actors of the run", ()),
    POOL_SENDINGS: ("how often the last round's features were sent; 1 where no shard was lost", ()),
}


def show_report(report: Report, *, run: str) -> None:
    """Show what a stretch of training did."""
    show(ROUND, report.round + 1, run=run)
    show(LAST_REPORT, time.time(), run=run)
    show(IMAGES_PER_S, report.images_per_s, run=run)
    for part, seconds in report.seconds.items():
        show(PART_SECONDS, seconds, run=run, part=part)
    if report.seconds.get("train"):
        show(DATA_WAIT, report.data_wait_s / report.seconds["train"], run=run)
    for score, value in (report.metrics or {}).items():
        show(SCORE, value, run=run, score=score)
    for view, figures in report.health.items():
        for figure, value in figures.items():
            show(HEALTH, value, run=run, view=view, figure=figure)


def show_pool(*, num_actors: int, sendings: int) -> None:
    """Show how a round's features reached the clustering actors."""
    show(POOL_ACTORS, num_actors)
    show(POOL_SENDINGS, sendings)


def show(name: str, value: float, **labels: str) -> None:
    """Set a gauge where Ray runs."""
    if ray.is_initialized():
        _gauge(name).set(float(value), tags=labels)


@cache
def _gauge(name: str) -> Any:
    from ray.util.metrics import Gauge

    description, labels = GAUGES[name]
    return Gauge(name, description=description, tag_keys=labels)
