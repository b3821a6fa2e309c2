"""PPLR's published data sets, with and without cameras."""

from dataclasses import replace

from reid.clustering import DBSCANConfig
from reid.recipes.contract import DEMO_DBSCAN, DEMO_UNLABELLED, Method
from reid.recipes.pplr import PPLR, PPLRConfig
from reid.recipes.published import Published


def _run(target: str, *, eps: float, camera_weight: float = 0.0) -> PPLRConfig:
    """Return a data set's published settings (the authors' README)."""
    config = PPLRConfig(
        source=target, target=target, dbscan=DBSCANConfig(eps=eps), camera_weight=camera_weight
    )
    if target == "veri776":
        config = replace(config, height=256, width=256, num_identities=8, num_instances=8)
    return config


_DEMO = replace(
    PPLRConfig(
        **DEMO_UNLABELLED,
        num_rounds=10,
        steps_per_round=60,
        eval_every_rounds=1,
        dbscan=DEMO_DBSCAN,
    ),
    last_stride=1,  # a map of 4 rows: there are 3 parts
)

RUNS: dict[str, PPLRConfig] = {
    "pplr-market1501": _run("market1501", eps=0.5),
    "pplr-msmt17": _run("msmt17", eps=0.5),
    "pplr-veri776": _run("veri776", eps=0.7),
    "pplr-market1501-camera": _run("market1501", eps=0.4, camera_weight=0.5),
    "pplr-msmt17-camera": _run("msmt17", eps=0.6, camera_weight=1.0),
    "pplr-veri776-camera": _run("veri776", eps=0.7, camera_weight=0.5),
    "pplr-demo": _DEMO,
    "pplr-camera-demo": replace(_DEMO, camera_weight=0.5),
}
"""Named runs: published data sets, and the built-in one."""

_WHERE = "the paper's benchmark page"

PUBLISHED = {
    "pplr-market1501-camera": Published(mAP=84.4, rank1=94.3, where=_WHERE),
    "pplr-msmt17-camera": Published(mAP=42.2, rank1=73.3, where=_WHERE),
}

METHOD = Method(config=PPLRConfig, recipe=PPLR, runs=RUNS, published=PUBLISHED)
