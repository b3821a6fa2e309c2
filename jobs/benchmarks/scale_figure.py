"""The figure of the scale study: processor seconds against rows, and against clusters."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.benchmarks.scale_fit import Fit, fits, of_one_shard

COLOURS = {
    "jaccard": "#b35900",
    "neighbors": "#d1242f",
    "hierarchy": "#1a8f3c",
    "greedy": "#1f4e9e",
    "parallel": "#4fa3e0",
    "lloyd": "#7a4fbf",
    "codes": "#8c959f",
    "dbscan": "#24292f",
}
FREE = ("jaccard", "neighbors", "hierarchy", "codes", "dbscan")
"""stages whose number of clusters is none, or follows the rows"""

Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, file: Path) -> None:
    """Draw measured times as points and the fitted laws as lines, all axes logarithmic."""
    found = fits(rows)
    widths = sorted({row["num_features"] for row in rows})
    seeded = of_one_shard(rows, "parallel")
    usual = Counter(row["num_clusters"] for row in seeded).most_common(1)[0][0]
    swept = Counter(row["num_rows"] for row in seeded).most_common(1)[0][0]
    figure = Figure(figsize=(4 * (len(widths) + 1), 4.2), layout="constrained")
    panels = figure.subplots(1, len(widths) + 1, sharey=True)
    for axes, width in zip(panels, widths, strict=False):
        axes.set_title(f"d = {width}, K = {usual} (hierarchy: N / 20)", fontsize=10)
        axes.set_xlabel("rows N")
        for stage in COLOURS:
            own = [
                row
                for row in of_one_shard(rows, stage)
                if row["num_features"] == width and (stage in FREE or row["num_clusters"] == usual)
            ]
            _line(axes, own, stage, "num_rows", found.get(stage))
    panels[-1].set_title(f"d = {widths[0]}, N = {swept:,}", fontsize=10)
    panels[-1].set_xlabel("clusters K")
    for stage in (stage for stage in COLOURS if stage not in FREE):
        own = [
            row
            for row in of_one_shard(rows, stage)
            if (row["num_rows"], row["num_features"]) == (swept, widths[0])
        ]
        _line(panels[-1], own, stage, "num_clusters", found.get(stage))
    panels[0].set_ylabel("processor seconds")
    for axes in panels:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=7.5, handlelength=1, labelspacing=0.25)
    figure.savefig(file, dpi=90)


def _line(axes: Axes, rows: Rows, stage: str, factor: str, law: Fit | None) -> None:
    """Draw one stage's points and its law, which is named by its exponent."""
    if not rows:
        return
    x = np.array([row[factor] for row in rows], dtype=float)
    colour = COLOURS[stage]
    axes.plot(x, [row["cpu_s"] for row in rows], "o", color=colour, markersize=4)
    if law is None or factor not in law.exponents:
        return
    letters = {"num_rows": "N", "num_clusters": "K"}
    name = rf"{stage} $\propto {letters[factor]}^{{{law.exponents[factor]:.2f}}}$"
    ends = (min(rows, key=lambda row: row[factor]), max(rows, key=lambda row: row[factor]))
    said = [law(**{name: row[name] for name in law.exponents}) for row in ends]
    axes.plot([row[factor] for row in ends], said, "-", color=colour, linewidth=1, label=name)
