"""MMT's published pairs (specs/spcl_inclr.md section 2)."""

from dataclasses import replace

from reid.models.backbones import BackboneName
from reid.recipes.contract import DEMO_BUDGET, DEMO_DBSCAN, Method
from reid.recipes.mmt import MMT, MMTConfig
from reid.recipes.published import Published, pair_name
from reid.recipes.source_runs import mmt_name

_MMT, _CC = "MMT, results in its README", "Cluster-Contrast, results figure: MMT with DBSCAN"

_KMEANS: tuple[tuple[str, str, int, BackboneName, float, float], ...] = (
    ("dukemtmc", "market1501", 500, "resnet50", 71.2, 87.7),
    ("dukemtmc", "market1501", 700, "resnet50", 69.0, 86.8),
    ("dukemtmc", "market1501", 900, "resnet50", 66.2, 86.8),
    ("market1501", "dukemtmc", 500, "resnet50", 63.1, 76.8),
    ("market1501", "dukemtmc", 700, "resnet50", 65.1, 78.0),
    ("market1501", "dukemtmc", 900, "resnet50", 63.1, 77.4),
    ("market1501", "msmt17", 500, "resnet50", 16.6, 37.5),
    ("market1501", "msmt17", 1000, "resnet50", 21.6, 46.1),
    ("market1501", "msmt17", 1500, "resnet50", 22.9, 49.2),
    ("market1501", "msmt17", 2000, "resnet50", 20.8, 45.7),
    ("dukemtmc", "msmt17", 1000, "resnet50", 23.5, 50.0),
    ("dukemtmc", "msmt17", 1500, "resnet50", 23.3, 50.1),
    ("dukemtmc", "market1501", 500, "resnet50_ibn", 76.5, 90.9),
    ("market1501", "dukemtmc", 700, "resnet50_ibn", 68.7, 81.8),
    ("market1501", "msmt17", 1500, "resnet50_ibn", 26.6, 54.4),
    ("dukemtmc", "msmt17", 1000, "resnet50_ibn", 29.7, 58.8),
)
"""Published: source, target, clusters, backbone, mAP, rank-1."""

_DBSCAN: dict[tuple[str, str], tuple[float, float] | None] = {
    ("dukemtmc", "market1501"): None,
    ("market1501", "dukemtmc"): None,
    ("market1501", "msmt17"): (24.0, 50.1),
    ("dukemtmc", "msmt17"): None,
    ("msmt17", "market1501"): (75.6, 89.3),
    ("personx", "market1501"): None,
    ("personx", "msmt17"): None,
    ("market1501", "personx"): (78.9, 90.6),
    ("vehicleid_800", "veri776"): (35.3, 74.6),
    ("vehiclex", "veri776"): None,
}
"""Pairs, with mAP and rank-1 where a paper that was seen has them."""


def _pair(source: str, target: str, backbone: BackboneName = "resnet50") -> MMTConfig:
    first, second = (mmt_name(source, target, seed=seed, backbone=backbone) for seed in (1, 2))
    config = MMTConfig(
        source=source, target=target, backbone=backbone, initial=first, second_initial=second
    )
    return replace(config, height=224, width=224) if target == "veri776" else config


def _name(source: str, target: str, labels: int | str, backbone: BackboneName = "resnet50") -> str:
    end = f"{target}-{labels}"
    return pair_name("mmt", source, end, backbone=backbone, usual="resnet50")


_DEMO = MMTConfig(**DEMO_BUDGET, second_initial="source-demo-seed2", neck="fresh")

RUNS: dict[str, MMTConfig] = {
    **{
        _name(*row[:4]): replace(_pair(row[0], row[1], row[3]), num_clusters=row[2])
        for row in _KMEANS
    },
    **{_name(*pair, "dbscan"): replace(_pair(*pair), cluster="dbscan") for pair in _DBSCAN},
    "mmt-demo": _DEMO,
    "mmt-dbscan-demo": replace(_DEMO, cluster="dbscan", k1=DEMO_DBSCAN.k1, k2=DEMO_DBSCAN.k2),
}
"""Named runs: published pairs and numbers of clusters, and the built-in pair."""

PUBLISHED = {
    **{_name(*row[:4]): Published(mAP=row[4], rank1=row[5], where=_MMT) for row in _KMEANS},
    **{
        _name(*pair, "dbscan"): Published(mAP=found[0], rank1=found[1], where=_CC)
        for pair, found in _DBSCAN.items()
        if found is not None
    },
}

METHOD = Method(config=MMTConfig, recipe=MMT, runs=RUNS, published=PUBLISHED)
