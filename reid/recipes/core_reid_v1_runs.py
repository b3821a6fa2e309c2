"""CORE-ReID's published pairs (specs/core_reid.md section 2)."""

from reid.recipes.contract import DEMO_BUDGET, Method
from reid.recipes.core_reid_v1 import CoreReIDV1, CoreReIDV1Config
from reid.recipes.published import Row, figures
from reid.recipes.source_runs import core_reid_settings

TABLE, CHART = "main tables", "Fig. 11, chart"
LATER = "CORE-ReID V2, main tables: baseline"

_ROWS: tuple[Row, ...] = (
    ("market1501", "cuhk03_np", 900, "resnet50", 62.3, 61.0, CHART),
    ("market1501", "cuhk03_np", 900, "resnet101", 62.9, 61.0, TABLE),
    ("market1501", "cuhk03_np", 900, "resnet152", 60.4, 59.0, CHART),
    ("cuhk03_np", "market1501", 900, "resnet50", 83.4, 93.1, CHART),
    ("cuhk03_np", "market1501", 900, "resnet101", 83.6, 93.6, TABLE),
    ("cuhk03_np", "market1501", 900, "resnet152", 83.4, 93.1, CHART),
    ("market1501", "msmt17", 2500, "resnet101", 41.9, 69.5, TABLE),
    ("cuhk03_np", "msmt17", 2500, "resnet101", 40.4, 67.3, TABLE),
    ("market1501", "dukemtmc", 900, "resnet101", 74.8, 84.8, TABLE),
    ("dukemtmc", "market1501", 700, "resnet101", 84.4, 93.6, TABLE),
    ("dukemtmc", "msmt17", 2500, "resnet101", 45.2, 72.2, TABLE),
    ("vehicleid_800", "veri776", 500, "resnet101", 47.70, 78.12, LATER),
    ("vehicleid_800", "veriwild_3000", 30_000, "resnet101", 39.8, 75.2, LATER),
    ("vehicleid_800", "veriwild_5000", 30_000, "resnet101", 34.5, 69.6, LATER),
    ("vehicleid_800", "veriwild_10000", 30_000, "resnet101", 26.8, 61.1, LATER),
    ("veri776", "vehicleid_800", 700, "resnet101", 64.28, 56.16, LATER),
    ("veri776", "vehicleid_1600", 700, "resnet101", 60.02, 51.84, LATER),
    ("veri776", "vehicleid_2400", 700, "resnet101", 56.15, 47.85, LATER),
)
"""Published: source, target, clusters, backbone (of a run without one in its name: the 101).

NOTE: of vehicles only scores are published: settings and clusters are those of V2's runs.
"""

PUBLISHED = figures("core_reid_v1", _ROWS, usual="resnet101")

RUNS: dict[str, CoreReIDV1Config] = {
    **{
        name: CoreReIDV1Config(**core_reid_settings(row))
        for name, row in zip(PUBLISHED, _ROWS, strict=True)
    },
    "core_reid_v1-demo": CoreReIDV1Config(**DEMO_BUDGET, batches="shared"),
}
"""Named runs: published pairs, and the built-in pair."""

METHOD = Method(config=CoreReIDV1Config, recipe=CoreReIDV1, runs=RUNS, published=PUBLISHED)
