"""INCLR's published pairs (specs/spcl_inclr.md section 3)."""

from dataclasses import replace

from reid.recipes.contract import DEMO_BUDGET, DEMO_DBSCAN, Method
from reid.recipes.inclr import INCLR, INCLRConfig
from reid.recipes.published import Published
from reid.recipes.source_runs import mmt_name

_ROWS = (
    ("dukemtmc", "market1501", 500, 82.2, 92.6),
    ("market1501", "dukemtmc", 700, 70.9, 82.6),
    ("dukemtmc", "msmt17", 1500, 30.1, 61.2),
    ("market1501", "msmt17", 1500, 29.5, 58.6),
)
"""Published, Table I with its last columns in their true order: pair, clusters, mAP, rank-1."""


def _pair(source: str, target: str, num_clusters: int) -> INCLRConfig:
    first, second = (mmt_name(source, target, seed=seed) for seed in (1, 2))
    return INCLRConfig(
        source=source,
        target=target,
        initial=first,
        second_initial=second,
        num_clusters=num_clusters,
    )


_DBSCAN = {f"inclr-{row[0]}-{row[1]}": _pair(*row[:3]) for row in _ROWS}

RUNS: dict[str, INCLRConfig] = {
    **_DBSCAN,
    **{f"{name}-kmeans": replace(run, cluster="kmeans") for name, run in _DBSCAN.items()},
    "inclr-demo": INCLRConfig(
        **DEMO_BUDGET,
        second_initial="source-demo-seed2",
        neck="fresh",
        dbscan=DEMO_DBSCAN,
        num_parts=2,  # the source runs' map has 2 rows
    ),
}
"""Named runs: published pairs, and the built-in one."""

PUBLISHED = {
    f"inclr-{source}-{target}": Published(mAP=score, rank1=rank1, where="Table I")
    for source, target, _, score, rank1 in _ROWS
}

METHOD = Method(config=INCLRConfig, recipe=INCLR, runs=RUNS, published=PUBLISHED)
