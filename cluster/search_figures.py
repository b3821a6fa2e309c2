"""Pictures of a search: trials as lines across their parameters, each parameter against the
objective, and the scores of clusterings against their number of clusters.

Legend: T trials, P parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from cluster.search_space import Parameter
from cluster.search_tier import COUNTS, EPS, MIN_SAMPLES
from cluster.search_trials import Trial, rank_correlation
from reid.evaluation.report import AGREEMENT, CLUSTERS, LEGEND, MUTED, QUERY, RIGHT

COLOURS = "viridis"
SCORES = {
    "silhouette": ("silhouette", QUERY, "o-"),
    "neighbor_agreement": ("neighbour agreement", RIGHT, "s-"),
    "camera_mixing": ("camera mixing", CLUSTERS, "d-"),
    "ari": ("adjusted Rand index with the true identities", AGREEMENT, "^--"),
}


def scored(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials with an objective, the worst first, so that the best are drawn on top."""
    known = [trial for trial in trials if trial.objective is not None]
    return sorted(known, key=lambda trial: (trial.state == "finished", trial.objective))


def drawable(trials: Sequence[Trial]) -> list[Trial]:
    """Return `scored`; ValueError if there is none."""
    if not (known := scored(trials)):
        raise ValueError(
            "no trial has an objective to draw; one that has trained a round is needed"
        )
    return known


def parallel_figure(
    trials: Sequence[Trial], space: Sequence[Parameter], *, objective: str, title: str
) -> Figure:
    """Draw each trial as a line across its parameters and scores; dashed: stopped early.

    ValueError without a trial that has an objective.
    """
    lines = drawable(trials)
    columns: list[tuple[str, list[Any], str]] = [
        (p.path, [trial.values[p.path] for trial in lines], str(p.kind)) for p in space
    ]
    columns.append((objective_name(objective), [trial.objective for trial in lines], "float"))
    if objective != "oracle" and all(trial.mAP is not None for trial in lines):
        columns.append(("mAP (test labels)", [trial.mAP for trial in lines], "float"))
    figure = Figure(figsize=(2.1 * len(columns) + 1.5, 4.6), dpi=150, layout="constrained")
    figure.suptitle(f"{title} (dashed: stopped early)", fontsize=11, fontweight="bold")
    axes = figure.subplots()
    places = [_placed(values, kind) for _, values, kind in columns]
    objectives = np.array([float(trial.objective or 0) for trial in lines])
    colours = _colours(objectives.tolist())
    rgba = colours.to_rgba(objectives)
    for row, trial in enumerate(lines):
        done = trial.state == "finished"
        axes.plot(
            range(len(columns)),
            [place[row] for place in places],
            "-" if done else "--",
            color=rgba[row],
            linewidth=2 if done else 1,
            alpha=1 if done else 0.6,
        )
    for x, (name, values, _) in enumerate(columns):
        axes.plot([x, x], [0, 1], color=MUTED, linewidth=0.8, zorder=0)
        for y, value in _ends(values).items():
            text = axes.text(
                x + 0.03, y, _short(value), fontsize=7, ha="left", va="center", color=MUTED
            )
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])
        axes.text(x, -0.08, name, fontsize=8, ha="center", va="top")
    axes.set(xticks=[], yticks=[], xlim=(-0.2, len(columns) - 0.6), ylim=(-0.2, 1.05))
    axes.spines[:].set_visible(False)
    figure.colorbar(colours, ax=axes, label=objective_name(objective))
    return figure


def sensitivity_figure(
    trials: Sequence[Trial], space: Sequence[Parameter], *, objective: str, title: str
) -> Figure:
    """Draw the objective against each parameter; filled: trained to the end, hollow: stopped.

    The headings have Spearman's correlation over the trials that were trained to the end. Stopped
    trials are shown by their last objective. ValueError as for `parallel_figure`.
    """
    points = drawable(trials)
    figure = Figure(figsize=(3.2 * len(space) + 0.6, 3.6), dpi=150, layout="constrained")
    figure.suptitle(f"{title} (hollow: stopped early)", fontsize=11, fontweight="bold")
    panels = figure.subplots(1, len(space), sharey=True, squeeze=False)[0]
    for axes, parameter in zip(panels, space, strict=True):
        _sensitivity(axes, points, parameter)
    panels[0].set_ylabel(objective_name(objective))
    return figure


def importances(trials: Sequence[Trial], space: Sequence[Parameter]) -> dict[str, float | None]:
    """Return Spearman's correlation of each ordered parameter with the objective, ended trials."""
    done = [trial for trial in scored(trials) if trial.state == "finished"]
    return {
        parameter.path: None
        if parameter.kind == "choice" and not _numeric(parameter.choices)
        else rank_correlation(
            [float(str(trial.values[parameter.path])) for trial in done],
            [float(trial.objective or 0) for trial in done],
        )
        for parameter in space
    }


def tier_figure(
    rows: Sequence[Mapping[str, Any]],
    *,
    best: Mapping[str, Any] | None,
    own: Mapping[str, Any],
    title: str,
) -> Figure:
    """Draw the scores of clusterings against their number of clusters, or their radius.

    `best` is the row to mark, `own` the run's own values. Radii have a panel for each size.
    """
    path = COUNTS if COUNTS in own and COUNTS in rows[0] and EPS not in rows[0] else EPS
    sizes = sorted({row.get(MIN_SAMPLES, 0) for row in rows})
    figure = Figure(figsize=(6.4 * len(sizes) + 0.4, 4.4), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        part = [row for row in rows if row.get(MIN_SAMPLES, 0) == size]
        for score, (name, colour, style) in SCORES.items():
            known = [(row[path], row[score]) for row in part if score in row]
            if known:
                x, y = np.array(known, dtype=np.float64).T
                axes.plot(x, y, style, color=colour, markersize=4, label=name)
        axes.axvline(float(own[path]), color=MUTED, linestyle=":", label="the run's own value")
        if best is not None and best.get(MIN_SAMPLES, 0) == size:
            axes.axvline(float(best[path]), color=QUERY, linewidth=3, alpha=0.25, label="best")
        axes.set_xlabel("number of clusters" if path == COUNTS else f"eps (min_samples {size})")
        axes.grid(alpha=0.3)
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), **LEGEND)
    panels[0].set_ylabel("score")
    return figure


def objective_name(objective: str) -> str:
    """Return an objective in words."""
    return "mAP (oracle: test labels)" if objective == "oracle" else objective.replace("_", " ")


def _sensitivity(axes: Axes, points: Sequence[Trial], parameter: Parameter) -> None:
    labels = parameter.kind == "choice" and not _numeric(parameter.choices)
    for trial in points:
        value = trial.values[parameter.path]
        done = trial.state == "finished"
        axes.plot(
            [str(value) if labels else float(str(value))],
            [float(trial.objective or 0)],
            "o",
            color=QUERY,
            markerfacecolor=QUERY if done else "none",
            markersize=6,
        )
    if not labels:
        _scale(axes, [float(str(trial.values[parameter.path])) for trial in points], parameter)
    found = importances(points, [parameter])[parameter.path]
    ended = sum(trial.state == "finished" for trial in points)
    said = "" if found is None else f"rank correlation {found:+.2f} over {ended} trials"
    axes.set_title(said, fontsize=8)
    axes.set_xlabel(parameter.path)
    axes.grid(alpha=0.3)


def _scale(axes: Axes, values: Sequence[float], parameter: Parameter) -> None:
    """Scale an axis as its parameter is drawn; name its ends and what lies halfway on it."""
    there, back = _ways(parameter.kind)
    if parameter.is_log:
        axes.set_xscale("function", functions=(there, back))
    low, high = min(values), max(values)
    ticks = sorted({low, float(back((there(low) + there(high)) / 2)), high})
    axes.set_xticks(ticks, [_short(float(f"{tick:.3g}")) for tick in ticks], fontsize=8)
    axes.set_xticks([], minor=True)


def _ways(kind: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the functions to the scale on which such a parameter is drawn evenly, and back."""
    if kind == "ema":
        return _rest_log, _rest_exp
    if kind in ("log", "logint"):
        return lambda x: np.log(np.maximum(x, 1e-300)), np.exp
    return lambda x: x, lambda x: x


def _rest_log(momentum: Any) -> Any:
    """Spread momenta as they are drawn: evenly in log(1 - m)."""
    return -np.log(np.maximum(1 - np.asarray(momentum, dtype=np.float64), 1e-12))


def _rest_exp(place: Any) -> Any:
    return 1 - np.exp(-np.asarray(place, dtype=np.float64))


def _numeric(choices: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in choices)


def _placed(values: Sequence[Any], kind: str) -> NDArray[np.float64]:
    """Return values between 0 and 1 on their axis; those without an order by their names."""
    if not _numeric(values):
        names = sorted({str(value) for value in values})
        return np.array([names.index(str(v)) / max(len(names) - 1, 1) for v in values])
    numbers = _ways(kind)[0](np.array(values, dtype=np.float64))
    low, high = numbers.min(), numbers.max()
    return (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)


def _colours(values: Sequence[float]) -> ScalarMappable:
    low, high = min(values), max(values)
    return ScalarMappable(Normalize(low, high if high > low else low + 1e-9), COLOURS)


def _ends(values: Sequence[Any]) -> dict[float, Any]:
    """Return what is written at an axis: {place: value}."""
    if len(set(values)) == 1:
        return {0.5: values[0]}
    return {0.0: min(values, key=_key), 1.0: max(values, key=_key)}


def _key(value: Any) -> tuple[bool, Any]:
    number = isinstance(value, int | float)
    return not number, value if number else str(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
