"""Pictures of retrieval: ranked results before and after adaptation, scores over the rounds.

Figures are plain `matplotlib.figure.Figure` objects: no window, no global state, any process.

Legend: Q queries, G gallery rows, D dimensions, n chosen queries, k results shown of each.
"""

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from reid.evaluation.retrieval import (
    JUNK_PID,
    GalleryFeatures,
    GalleryIds,
    QueryFeatures,
    QueryIds,
    as_float,
    as_ids,
    ranking_distance,
)
from reid.types import Retrieval, Split

RIGHT, WRONG, QUERY, MUTED = "#1a8f3c", "#d1242f", "#1f4e9e", "#57606a"
CLUSTERS, AGREEMENT = "#7a4fbf", "#b35900"
FOOTER = "Green: the query's identity; red: another. Its images from the same camera are left out."
LEGEND = {"frameon": False, "fontsize": 8, "borderaxespad": 0.2}
MIN_WIDTH = 5.2  # inches: room for the footer
NO_RESULT = -1  # fills a row whose gallery has fewer results than asked for

Images = NDArray[np.uint8] | Callable[[int], NDArray[np.uint8]]
"""All images (N,H,W,3) uint8 RGB, or a function of the row that returns one (H,W,3)."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What one model returned: its `name`, `scores`, and gallery `rows` (n,k) of n queries."""

    name: str
    scores: Retrieval
    rows: Int64[np.ndarray, "n k"]


def ranked_gallery(
    query_features: QueryFeatures,
    gallery_features: GalleryFeatures,
    *,
    query_pids: QueryIds,
    query_camids: QueryIds,
    gallery_pids: GalleryIds,
    gallery_camids: GalleryIds,
    queries: Int64[np.ndarray, "n"],
    num_results: int = 10,
) -> Int64[np.ndarray, "n {num_results}"]:
    """Return the closest gallery rows (n, num_results) of a few queries, junk removed.

    Features, junk and ties as in `retrieval`; holds n x G distances. Where a query has fewer
    results, `NO_RESULT` fills the rest.
    """
    gallery = as_float(gallery_features)
    query = as_float(query_features)[torch.from_numpy(queries)].to(gallery.device)
    query_pid, query_camid = as_ids(query_pids)[queries], as_ids(query_camids)[queries]
    gallery_pid, gallery_camid = as_ids(gallery_pids), as_ids(gallery_camids)
    junk = (query_pid[:, None] == gallery_pid) & (query_camid[:, None] == gallery_camid)
    junk |= gallery_pid == JUNK_PID
    distance = ranking_distance(query, gallery, gallery.square().sum(dim=1))
    distance[torch.from_numpy(junk).to(distance.device)] = torch.inf
    distance, rows = (part[:, :num_results] for part in distance.sort(dim=1, stable=True))
    results = np.full((len(queries), num_results), NO_RESULT, dtype=np.int64)
    results[:, : rows.shape[1]] = rows.masked_fill(distance.isinf(), NO_RESULT).cpu().numpy()
    return results


def choose_queries(before: Retrieval, after: Retrieval, num: int) -> Int64[np.ndarray, "n"]:
    """Return `num` query rows that show the adapted model as it is, best first.

    Queries are ordered by AP after adaptation (equal ones by AP before, then by row) and split
    into `num` groups of equal size; the middle of each is taken, so failures appear as often as
    they occur. ValueError when fewer than `num` queries have a match.
    """
    valid = np.flatnonzero(~np.isnan(before.ap) & ~np.isnan(after.ap))
    if not 1 <= num <= len(valid):
        raise ValueError(f"num={num} queries of {len(valid)} that have a match; use 1 to that many")
    worst_first = valid[np.lexsort((before.ap[valid], after.ap[valid]))]
    middle = (2 * np.arange(num) + 1) * len(valid) // (2 * num)
    return worst_first[middle][::-1].astype(np.int64)


def ranking_figure(
    queries: Int64[np.ndarray, "n"],
    *,
    rankings: Sequence[Ranking],
    query: Split,
    gallery: Split,
    query_images: Images,
    gallery_images: Images,
    title: str,
) -> Figure:
    """Draw each query at the left of its results, one line of results per ranking.

    `rankings` run from top to bottom, such as before and after adaptation; their mAP is in the
    heading, the query's AP at each line. Frames: blue the query, green a right result, red a wrong
    one, told apart by a tick and a cross too. Under each image its `camid`.
    """
    rows, columns, _ = _image(query_images, int(queries[0])).shape
    cell = np.sqrt([0.55 * columns / rows, 0.55 * rows / columns])
    num_results, line = rankings[0].rows.shape[1], cell[1] + 0.26
    block, left = len(rankings) * line + 0.2, 1.4 * cell[0] + 1.1
    pitch, top = cell[0] + 0.08, 1.0
    size = (max(left + num_results * pitch + 0.1, MIN_WIDTH), top + len(queries) * block + 0.15)
    figure = Figure(figsize=size, dpi=200)
    scores = " \N{RIGHTWARDS ARROW} ".join(f"{r.name} {_percent(r.scores.mAP)}" for r in rankings)
    _write(figure, (0.15, 0.28), title, fontsize=11, fontweight="bold")
    _write(figure, (0.15, 0.56), f"mAP: {scores}", fontsize=9)
    for place in range(num_results):
        center = left + place * pitch + cell[0] / 2
        _write(figure, (center, top - 0.12), str(place + 1), fontsize=8, color=MUTED, ha="center")
    _write(figure, (0.15, size[1] - 0.12), FOOTER, fontsize=7, color=MUTED)
    for index, row in enumerate(queries.tolist()):
        y = top + index * block
        middle = y + (block - 0.2 - 1.4 * line) / 2
        image, label = _image(query_images, row), f"query, cam {query.camid[row]}"
        _show(figure, (0.15, middle, *(1.4 * cell)), image, color=QUERY, label=label)
        for ranking in rankings:
            name = f"{textwrap.fill(ranking.name, 11)}\nAP {_percent(ranking.scores.ap[row])}"
            _write(figure, (left - 0.1, y + cell[1] / 2), name, fontsize=8, ha="right", va="center")
            for place, result in enumerate(ranking.rows[index].tolist()):
                if result == NO_RESULT:
                    continue
                right = gallery.pid[result] == query.pid[row]
                color, mark = (RIGHT, "\N{CHECK MARK}") if right else (WRONG, "\N{BALLOT X}")
                label, at = f"{mark} cam {gallery.camid[result]}", (left + place * pitch, y, *cell)
                _show(figure, at, _image(gallery_images, result), color=color, label=label)
            y += line
    return figure


def rounds_figure(
    rounds: Sequence[Mapping[str, Any]], *, direct_transfer: Mapping[str, float], title: str
) -> Figure:
    """Plot mAP and rank-1 over the rounds, and the clusters they were learnt from.

    `rounds` are those of a run's summary: `round`, `num_clusters`, and, None or absent where not
    measured, `mAP`, `rank1` (fractions) and `ari` (adjusted Rand index of the pseudo-labels).
    `direct_transfer` holds the `mAP` and `rank1` before adaptation: the dashed lines.
    ValueError without a round.
    """
    if not rounds:
        raise ValueError("no round to plot; a run that has finished one is needed")
    figure = Figure(figsize=(7.2, 5.6), dpi=150, layout="constrained")
    scores, clusters = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(title, fontsize=11, fontweight="bold")
    for key, name, color in (("mAP", "mAP", QUERY), ("rank1", "rank-1", RIGHT)):
        x, y = _series(rounds, key)
        if len(x):
            label = f"{name}, last {_percent(y[-1])}"
            scores.plot(x, 100 * y, "o-", color=color, markersize=4, label=label)
        if key in direct_transfer:
            label = f"{name} of direct transfer, {_percent(direct_transfer[key])}"
            scores.axhline(100 * direct_transfer[key], color=color, linestyle="--", label=label)
    scores.set_ylabel("score (%)")
    x, y = _series(rounds, "num_clusters")
    clusters.plot(x, y, "s-", color=CLUSTERS, markersize=4, label="clusters")
    clusters.set(xlabel="round", ylabel="number of clusters")
    for axis in (clusters.xaxis, clusters.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    handles = clusters.get_lines()
    x, y = _series(rounds, "ari")
    if len(x):
        agreement = clusters.twinx()
        label = "adjusted Rand index with the true identities"
        handles += agreement.plot(x, y, "^-", color=AGREEMENT, markersize=4, label=label)
        agreement.set(ylabel="adjusted Rand index", ylim=(0, 1))
    for axes, lines in ((scores, scores.get_lines()), (clusters, handles)):
        axes.grid(alpha=0.3)
        axes.legend(handles=lines, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), **LEGEND)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to `path` (its suffix names the format), whole or not at all."""
    rendered = BytesIO()
    figure.savefig(rendered, format=path.suffix[1:])
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(rendered.getvalue())
    temporary.replace(path)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _image(images: Images, row: int) -> NDArray[np.uint8]:
    return images(row) if callable(images) else images[row]


def _series(
    rounds: Sequence[Mapping[str, Any]], key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rounds that have a value, counted from 1, and the values."""
    points = [(entry["round"] + 1, entry[key]) for entry in rounds if entry.get(key) is not None]
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return x, y


def _write(figure: Figure, at: tuple[float, float], text: str, **style: Any) -> None:
    """Write text at inches from the left and the top."""
    width, height = figure.get_size_inches()
    figure.text(at[0] / width, 1 - at[1] / height, text, **style)


def _show(
    figure: Figure,
    at: tuple[float, float, float, float],
    image: NDArray[np.uint8],
    *,
    color: str,
    label: str,
) -> None:
    """Show a framed image at (left, top, width, height) inches, pixels as they are."""
    total_width, total_height = figure.get_size_inches()
    left, top, width, height = at
    bottom = 1 - (top + height) / total_height
    axes = figure.add_axes((left / total_width, bottom, width / total_width, height / total_height))
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[], anchor="S")
    axes.set_xlabel(label, fontsize=7, color=color, labelpad=2.5)
    axes.spines[:].set(color=color, linewidth=2.2)
