"""CORE-ReID's published pairs (specs/core_reid.md section 2)."""

from reid.models import BackboneName
from reid.recipes.contract import DEMO_BUDGET, Method
from reid.recipes.core_reid_v1 import CoreReIDV1, CoreReIDV1Config
from reid.recipes.published import Row, figures
from reid.recipes.source_runs import source_name

TABLE, CHART = "main tables", "Fig. 11, chart"

_ROWS: tuple[Row, ...] = (
    ("market1501", "cuhk03_np", 900, "resnet50", 62.3, 61.0, CHART),
    ("market1501", "cuhk03_np", 900, "resnet101", 62.9, 61.0, TABLE),
    ("market1501", "cuhk03_np", 900, "resnet152", 60.4, 59.0, CHART),
    ("cuhk03_np", "market1501", 900, "resnet50", 83.4, 93.1, CHART),
    ("cuhk03_np", "market1501", 900, "resnet101", 83.6, 93.6, TABLE),
    ("cuhk03_np", "market1501", 900, "resnet152", 83.4, 93.4, CHART),
    ("market1501", "msmt17", 2500, "resnet101", 41.9, 69.5, TABLE),
    ("cuhk03_np", "msmt17", 2500, "resnet101", 40.4, 67.3, TABLE),
    ("market1501", "dukemtmc", 900, "resnet101", 74.8, 84.8, TABLE),
    ("dukemtmc", "market1501", 700, "resnet101", 84.4, 93.6, TABLE),
    ("dukemtmc", "msmt17", 2500, "resnet101", 45.2, 72.2, TABLE),
)
"""Published: source, target, clusters, backbone (of a run without one in its name: the 101)."""


def _pair(source: str, target: str, num_clusters: int, backbone: BackboneName) -> CoreReIDV1Config:
    return CoreReIDV1Config(
        source=source,
        target=target,
        initial=source_name(source, target, backbone),
        num_clusters=num_clusters,
        backbone=backbone,
    )


PUBLISHED = figures("core_reid_v1", _ROWS, usual="resnet101")

RUNS: dict[str, CoreReIDV1Config] = {
    **{name: _pair(*row[:4]) for name, row in zip(PUBLISHED, _ROWS, strict=True)},
    "core_reid_v1-demo": CoreReIDV1Config(**DEMO_BUDGET),
}
"""Named runs: published pairs, and the built-in pair."""

METHOD = Method(config=CoreReIDV1Config, recipe=CoreReIDV1, runs=RUNS, published=PUBLISHED)
