"""The figure of the methods: their scores over seeds and over rounds, and what their parts buy."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.benchmarks.methods_cases import BOUND, DIRECT
from reid.evaluation.report import MUTED, QUERY

COLOURS = (
    "#1f4e9e",
    "#d1242f",
    "#1a8f3c",
    "#b35900",
    "#7a4fbf",
    "#0e8a8a",
    "#bf3989",
    "#4fa3e0",
    "#8a7a00",
    "#8c959f",
    "#24292f",
    "#e8798a",
)
"""Of methods, the best first; further ones begin anew."""

Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, file: Path) -> None:
    """Draw a line of panels for each world: final mAP by seed, mAP over rounds, what parts buy."""
    worlds = list(dict.fromkeys(row["world"] for row in rows))
    has_parts = any(row["buys"] is not None for row in rows)
    widths = [4.6, 5.4, 5.0][: 2 + has_parts]
    figure = Figure(figsize=(sum(widths), 4.8 * len(worlds)), layout="constrained")
    panels = figure.subplots(len(worlds), len(widths), width_ratios=widths, squeeze=False)
    for line, world in zip(panels, worlds, strict=True):
        mine = [row for row in rows if row["world"] == world]
        drawn = [axes for axes, _ in zip(line, widths, strict=True)]
        _finals(drawn[0], mine, world)
        _curves(drawn[1], mine)
        if has_parts:
            _parts(drawn[2], mine)
        for axes in drawn:
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)


def ranked(rows: Rows) -> list[str]:
    """Return the methods' names, the best mean mAP first; no variants."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row["buys"] is None and row["case"] not in (DIRECT, BOUND.name):
            scores.setdefault(row["case"], []).append(row["mAP"])
    return sorted(scores, key=lambda case: -statistics.mean(scores[case]))


def of_case(rows: Rows, case: str, key: str) -> list[Any]:
    """Return a figure of a case, a value a seed."""
    return [row[key] for row in rows if row["case"] == case]


def apart(values: Sequence[float], least: float) -> list[float]:
    """Return falling values moved down until each is `least` below the one before."""
    places: list[float] = []
    for value in values:
        places.append(min(value, places[-1] - least) if places else value)
    return places


def _finals(axes: Axes, rows: Rows, world: str) -> None:
    names = ranked(rows)
    for place, name in enumerate(names):
        scores = [100 * value for value in of_case(rows, name, "mAP")]
        colour = COLOURS[place % len(COLOURS)]
        axes.plot([min(scores), max(scores)], [place, place], color=colour, linewidth=1)
        axes.plot(scores, [place] * len(scores), "o", color=colour, markersize=4, alpha=0.6)
        axes.plot(statistics.mean(scores), place, "|", color=colour, markersize=14)
    for case, style in ((DIRECT, ":"), (BOUND.name, "--")):
        if scores := of_case(rows, case, "mAP"):
            mean = 100 * statistics.mean(scores)
            axes.axvline(mean, color=MUTED, linestyle=style, linewidth=1)
            axes.text(mean, -0.8, case, color=MUTED, fontsize=8, ha="center", va="bottom")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.9)
    axes.set_xlabel("mAP %, a point a seed, the mean as a bar")
    axes.set_title(f"{world} A to B", fontsize=10, fontweight="bold", loc="left", pad=14)
    axes.grid(axis="x", alpha=0.25)


def _curves(axes: Axes, rows: Rows) -> None:
    names = ranked(rows)
    ends = {}
    for place, name in enumerate(names):
        curves = of_case(rows, name, "curve")
        rounds = [number for number, _ in curves[0]]
        means = [
            100 * statistics.mean(dict(curve)[number] for curve in curves) for number in rounds
        ]
        axes.plot(rounds, means, color=COLOURS[place % len(COLOURS)], linewidth=1.4)
        ends[name] = (rounds[-1], means[-1])
    order = sorted(ends, key=lambda name: -ends[name][1])
    for name, y in zip(order, apart([ends[name][1] for name in order], 3.2), strict=True):
        colour = COLOURS[names.index(name) % len(COLOURS)]
        axes.annotate(
            name,
            ends[name],
            (max(x for x, _ in ends.values()) * 1.04, y),
            fontsize=7.5,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5)},
        )
    axes.margins(x=0.02)
    axes.set_xlabel("rounds of updates, the source stage's included")
    axes.set_ylabel("mAP %, mean over seeds")
    axes.grid(alpha=0.25)


def _parts(axes: Axes, rows: Rows) -> None:
    cases = list(dict.fromkeys(row["case"] for row in rows if row["buys"] is not None))
    for place, case in enumerate(cases):
        points = [100 * value for value in of_case(rows, case, "buys")]
        mean = statistics.mean(points)
        axes.barh(place, mean, height=0.5, color=QUERY if mean > 0 else MUTED, alpha=0.5)
        axes.plot(points, [place] * len(points), "o", color=QUERY, markersize=3)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(cases)), cases, fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xlabel("points of mAP: method less variant")
    axes.grid(axis="x", alpha=0.25)
