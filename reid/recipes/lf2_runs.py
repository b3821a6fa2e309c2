"""LF2's published pairs."""

from reid.recipes.contract import DEMO_BUDGET, Method
from reid.recipes.lf2 import LF2, LF2Config
from reid.recipes.published import Row, figures, of_row
from reid.recipes.source_runs import lf2_name

_ROWS: tuple[Row, ...] = (
    ("dukemtmc", "market1501", 700, "resnet50", 83.2, 92.8, "slides, README"),
    ("market1501", "dukemtmc", 900, "resnet50", 73.5, 83.7, "slides, README"),
)
"""Published: source, target, clusters, backbone."""

PUBLISHED = figures("lf2", _ROWS, usual="resnet50")

RUNS: dict[str, LF2Config] = {
    **{
        name: LF2Config(**of_row(row, initial=lf2_name(*row[:2])))
        for name, row in zip(PUBLISHED, _ROWS, strict=True)
    },
    "lf2-demo": LF2Config(**DEMO_BUDGET, batches="shared"),
}
"""Named runs: published pairs, and the built-in pair."""

METHOD = Method(config=LF2Config, recipe=LF2, runs=RUNS, published=PUBLISHED)
