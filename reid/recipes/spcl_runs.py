"""SpCL's published pairs and data sets (specs/spcl_inclr.md sections 1.6 and 6)."""

from dataclasses import replace
from typing import Any

from reid.models.backbones import BackboneName
from reid.recipes.contract import DEMO, DEMO_DBSCAN, Method
from reid.recipes.published import IBN_WEIGHTS, Published, pair_name
from reid.recipes.spcl import SpCL, SpCLConfig

FIGURE, BOARD, CODE = "figure of results", "OpenUnReID's board", "Cluster-Contrast's figure"

_ROWS: tuple[tuple[str, str, BackboneName, float, float, str], ...] = (
    ("dukemtmc", "market1501", "resnet50", 76.7, 90.3, BOARD),
    ("market1501", "dukemtmc", "resnet50", 68.8, 82.9, BOARD),
    ("market1501", "msmt17", "resnet50", 26.8, 53.7, FIGURE),
    ("market1501", "msmt17", "resnet50_ibn", 31.0, 58.1, FIGURE),
    ("dukemtmc", "msmt17", "resnet50", 26.5, 53.1, BOARD),
    ("msmt17", "market1501", "resnet50", 77.5, 89.7, FIGURE),
    ("msmt17", "market1501", "resnet50_ibn", 79.9, 92.0, FIGURE),
    ("personx", "market1501", "resnet50", 73.8, 88.0, FIGURE),
    ("personx", "market1501", "resnet50_ibn", 77.9, 90.5, FIGURE),
    ("personx", "msmt17", "resnet50", 22.7, 47.7, FIGURE),
    ("personx", "msmt17", "resnet50_ibn", 25.4, 50.6, FIGURE),
    ("market1501", "personx", "resnet50", 78.5, 91.1, CODE),
    ("vehicleid_800", "veri776", "resnet50", 38.9, 80.4, FIGURE),
    ("vehicleid_800", "veri776", "resnet50_ibn", 38.0, 79.7, FIGURE),
    ("vehiclex", "veri776", "resnet50", 38.9, 81.3, FIGURE),
    ("vehiclex", "veri776", "resnet50_ibn", 37.8, 80.7, FIGURE),
    ("market1501", "market1501", "resnet50", 73.1, 88.1, FIGURE),
    ("market1501", "market1501", "resnet50_ibn", 73.8, 88.4, FIGURE),
    ("dukemtmc", "dukemtmc", "resnet50", 65.3, 81.2, BOARD),
    ("msmt17", "msmt17", "resnet50", 19.1, 42.3, FIGURE),
    ("msmt17", "msmt17", "resnet50_ibn", 24.0, 48.9, FIGURE),
    ("veri776", "veri776", "resnet50", 36.9, 79.9, FIGURE),
    ("veri776", "veri776", "resnet50_ibn", 36.6, 79.1, FIGURE),
    ("personx", "personx", "resnet50", 72.3, 88.1, CODE),
)
"""One name twice: without a source."""

_PLUS: tuple[tuple[str, str, float, float], ...] = (
    ("dukemtmc", "market1501", 78.2, 90.5),
    ("market1501", "dukemtmc", 70.4, 83.8),
    ("market1501", "market1501", 76.0, 89.5),
    ("dukemtmc", "dukemtmc", 67.1, 82.4),
)
"""SpCL+: ResNet-50 with GeM, from OpenUnReID's board."""


def _config(source: str, target: str, backbone: BackboneName = "resnet50") -> SpCLConfig:
    """Return a pair's settings: large targets have twice the steps, vehicles are square."""
    settings: dict[str, Any] = {"source": source, "target": target, "backbone": backbone}
    if backbone == "resnet50_ibn":
        settings["weights"] = IBN_WEIGHTS
    if target in ("msmt17", "veri776"):
        settings["steps_per_round"] = 800
    if target == "veri776":
        settings |= {"height": 224, "width": 224}
    return SpCLConfig(with_source=source != target, **settings)


def _name(source: str, target: str, backbone: BackboneName = "resnet50") -> str:
    if source == target:
        return f"spcl_usl-{target}" + ("" if backbone == "resnet50" else f"-{backbone}")
    return pair_name("spcl", source, target, backbone=backbone, usual="resnet50")


PUBLISHED = {
    **{
        _name(source, target, backbone): Published(mAP=score, rank1=rank1, where=where)
        for source, target, backbone, score, rank1, where in _ROWS
    },
    **{
        f"{_name(source, target)}-gem": Published(mAP=score, rank1=rank1, where=BOARD)
        for source, target, score, rank1 in _PLUS
    },
}

_DEMO = SpCLConfig(
    **DEMO,
    initial="source-demo",
    memory="extracted",
    num_rounds=8,
    steps_per_round=60,
    eval_every_rounds=2,
    dbscan=DEMO_DBSCAN,
)

RUNS: dict[str, SpCLConfig] = {
    **{_name(*row[:3]): _config(*row[:3]) for row in _ROWS},
    **{
        f"{_name(source, target)}-gem": replace(_config(source, target), pooling="gem")
        for source, target, *_ in _PLUS
    },
    "spcl-demo": _DEMO,
    "spcl_usl-demo": replace(
        _DEMO, source=_DEMO.target, with_source=False, initial=None, num_rounds=12
    ),
}
"""Named runs: published pairs and data sets, and the built-in ones."""

METHOD = Method(config=SpCLConfig, recipe=SpCL, runs=RUNS, published=PUBLISHED)
