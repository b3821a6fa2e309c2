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
Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, file: Path) -> None:
    """Draw measured times as points and the fitted laws as lines, all axes logarithmic."""
    found = fits(rows)
    widths = sorted({row["num_features"] for row in rows})
    seeded = of_one_shard(rows, "parallel")
    usual = Counter(row["num_clusters"] for row in seeded).most_common(1)[0][0]
    swept = Counter(row["num_rows"] for row in seeded).most_common(1)[0][0]
    few = min((row["num_rows"] for row in rows if row["num_shards"] == 1), default=0)
    of_few = [r["num_clusters"] for r in of_one_shard(rows, "hierarchy") if r["num_rows"] == few]
    each = few // of_few[0] if of_few else 1  # rows a cluster of the hierarchy
    figure = Figure(figsize=(4 * (len(widths) + 1), 4.6), layout="constrained")
    panels = figure.subplots(1, len(widths) + 1, sharey=True)
    for axes, width in zip(panels, widths, strict=False):
        axes.set_title(f"d = {width}, K = {usual} (hierarchy: N / {each})", fontsize=10)
        axes.set_xlabel("rows N")
        for stage in COLOURS:
            own = [
                row
                for row in of_one_shard(rows, stage)
                if row["num_features"] == width
                and row["num_clusters"]
                in (0, row["num_rows"] // each if stage == "hierarchy" else usual)
            ]
            _line(axes, own, stage, "num_rows", found.get(stage))
    panels[-1].set_title(f"d = {widths[0]}, N = {swept:,}", fontsize=10)
    panels[-1].set_xlabel("clusters K")
    for stage in COLOURS:
        own = [
            row
            for row in of_one_shard(rows, stage)
            if (row["num_rows"], row["num_features"]) == (swept, widths[0]) and row["num_clusters"]
        ]
        _line(panels[-1], own, stage, "num_clusters", found.get(stage))
    panels[0].set_ylabel("processor seconds")
    for axes in panels:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)
    figure.savefig(file, dpi=85)


def _line(axes: Axes, rows: Rows, stage: str, factor: str, law: Fit | None) -> None:
    """Draw one stage's points and its law, named by all its exponents."""
    if not rows:
        return
    x = np.array([row[factor] for row in rows], dtype=float)
    colour, letters = COLOURS[stage], {"num_rows": "N", "num_features": "d", "num_clusters": "K"}
    axes.plot(x, [row["cpu_s"] for row in rows], "o", color=colour, markersize=4)
    if law is None:
        return
    powers = [f"{letters[name]}^{{{value:.2f}}}" for name, value in law.exponents.items()]
    ends = (min(rows, key=lambda row: row[factor]), max(rows, key=lambda row: row[factor]))
    said = [law(**{name: row[name] for name in law.exponents}) for row in ends]
    name = f"{stage}: ${' '.join(powers)}$"
    axes.plot([row[factor] for row in ends], said, "-", color=colour, linewidth=1, label=name)
