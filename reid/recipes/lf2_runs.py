"""LF2's published pairs."""

from reid.models import BackboneName
from reid.recipes.contract import DEMO_BUDGET, Method
from reid.recipes.lf2 import LF2, LF2Config
from reid.recipes.published import Row, figures

_ROWS: tuple[Row, ...] = (
    ("dukemtmc", "market1501", 700, "resnet50", 83.2, 92.8, "slides, README"),
    ("market1501", "dukemtmc", 900, "resnet50", 73.5, 83.7, "slides, README"),
)
"""Published: source, target, clusters, backbone."""


def _pair(source: str, target: str, num_clusters: int, backbone: BackboneName) -> LF2Config:
    return LF2Config(
        source=source,
        target=target,
        initial=f"source-{source}-{target}-lf2",
        num_clusters=num_clusters,
        backbone=backbone,
    )


PUBLISHED = figures("lf2", _ROWS, usual="resnet50")

RUNS: dict[str, LF2Config] = {
    **{name: _pair(*row[:4]) for name, row in zip(PUBLISHED, _ROWS, strict=True)},
    "lf2-demo": LF2Config(**DEMO_BUDGET, batches="shared"),
}
"""Named runs: published pairs, and the built-in pair."""

METHOD = Method(config=LF2Config, recipe=LF2, runs=RUNS, published=PUBLISHED)
