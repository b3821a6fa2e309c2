"""The sparse part of clustering against what people use: neighbours, Jaccard, DBSCAN, reliability.

The memory of what makes N x N arrays is measured in processes of their own, which this file is as
well:

    python -m jobs.benchmarks.clustering_sparse ours|peer NUM_ROWS NUM_FEATURES

prints a peak in MiB. The peers are FAISS's exhaustive search, and the way of the released code of
SpCL, OpenUnReID, Cluster-Contrast and PPLR written out anew: N x N arrays and loops over rows.

Legend: N rows, D feature dimensions.
"""

import subprocess
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.benchmarks.features import made_features
from jobs.benchmarks.timing import Case, memory_kib
from reid.clustering import (
    Reliability,
    dbscan,
    jaccard_distance,
    nearest_neighbors,
    reliability,
    split,
)
from reid.clustering.listing import Wanted
from reid.clustering.nearest import exhaustive_search
from reid.clustering.products import FLOAT32
from reid.clustering.search import search

K, K1, K2 = 30, 30, 6
EPS, EPS_GAP, MIN_SAMPLES = 0.6, 0.02, 4
REACH = 0.65
"""distances are kept below this: above all radii, at which DBSCAN counts an equal distance"""
RADII = np.linspace(0.4, 0.6, 20)
MIN_SAMPLES_TRIED = (2, 3, 4, 6)
JACCARD = f"Jaccard k1={K1} and DBSCAN"


def cases(features: NDArray[np.float32]) -> list[Case]:
    """Return all comparisons on features (N,D)."""
    # What the last two start from is made once, by the first call that needs it.
    made = cache(partial(_distances, features))
    labels = cache(
        lambda: [dbscan(made()[0], eps=eps) for eps in (EPS, EPS - EPS_GAP, EPS + EPS_GAP)]
    )
    some = [(float(radius), MIN_SAMPLES) for radius in RADII[:: len(RADII) - 1]]
    every = [(float(radius), count) for radius in RADII for count in MIN_SAMPLES_TRIED]
    flat, dense = "faiss.IndexFlatL2", "dense N x N, as released"
    return [
        Case(
            name=f"neighbours, k={K}",
            peer=flat,
            ours=lambda: nearest_neighbors(features, K).indices,
            theirs=lambda: exhaustive_search(features, K)[1],
            parity=_same_sets,
        ),
        Case(
            name=f"neighbours, k={K}, in float32",
            peer=flat,
            ours=lambda: (
                search(split(features, 1), [Wanted(k=K)], product=FLOAT32).lists[0].indices
            ),
            theirs=lambda: exhaustive_search(features, K)[1],
            parity=_same_sets,
        ),
        Case(
            name=JACCARD,
            peer=dense,
            ours=lambda: sparse_labels(features),
            theirs=lambda: dense_labels(features),
            parity=_same_labels,
            peak_mib=lambda: (peak_mib("ours", *features.shape), peak_mib("peer", *features.shape)),
        ),
        Case(
            name=f"{len(every)} runs of DBSCAN on one matrix",
            peer=f"scikit-learn on N x N ({len(some)} runs taken as {len(every)})",
            ours=lambda: {run: dbscan(made()[0], eps=run[0], min_samples=run[1]) for run in every},
            theirs=lambda: {run: _sklearn(made()[1], *run) for run in some},
            parity=_same_of_some,
            share=len(some) / len(every),
        ),
        Case(
            name="reliability",
            peer=dense,
            ours=lambda: reliability(*labels()),
            theirs=lambda: dense_reliability(*labels()),
            parity=_same_scores,
        ),
    ]


def sparse_labels(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return clusters (N,) by this project's way."""
    return dbscan(jaccard_distance(features, k1=K1, k2=K2, max_distance=REACH), eps=EPS)


def dense_labels(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return clusters (N,) by the released way."""
    return _sklearn(dense_jaccard(features), EPS, MIN_SAMPLES)


def dense_jaccard(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Jaccard distances (N,N) by loops over rows and three N x N arrays, as is usual."""
    num_rows = len(features)
    rank = exhaustive_search(features, K1)[1]

    def reciprocal(row: int, k: int) -> NDArray[np.int64]:
        forward: NDArray[np.int64] = rank[row, : k + 1]
        mutual: NDArray[np.int64] = forward[(rank[forward, : k + 1] == row).any(axis=1)]
        return mutual

    sets = [reciprocal(row, K1) for row in range(num_rows)]
    halves = [reciprocal(row, round(K1 / 2)) for row in range(num_rows)]
    weights = np.zeros((num_rows, num_rows), dtype=np.float32)
    tensor = torch.from_numpy(features)
    for row, core in enumerate(sets):
        grown = core
        for candidate in core:
            others = halves[candidate]
            if len(np.intersect1d(others, core)) > 2 / 3 * len(others):
                grown = np.append(grown, others)
        grown = np.unique(grown)
        far = 2 - 2 * tensor[row] @ tensor[grown].T
        weights[row, grown] = torch.softmax(-far, dim=0).numpy()
    averaged = np.zeros_like(weights)
    for row in range(num_rows):
        averaged[row] = weights[rank[row, :K2]].mean(axis=0)
    del weights
    holders = [np.flatnonzero(averaged[:, column]) for column in range(num_rows)]
    distance = np.zeros_like(averaged)
    for row in range(num_rows):
        shared = np.zeros(num_rows, dtype=np.float32)
        for column in np.flatnonzero(averaged[row]):
            held = holders[column]
            shared[held] += np.minimum(averaged[row, column], averaged[held, column])
        distance[row] = 1 - shared / (2 - shared)
    distance[distance < 0] = 0
    return distance


def dense_reliability(*labels: NDArray[np.int64]) -> Reliability:
    """Return the scores by masks (N,N) of equal labels, as is usual."""
    own = []
    for each in labels:
        named = each.copy()
        outliers = np.flatnonzero(each < 0)
        named[outliers] = each.max() + 1 + np.arange(len(outliers))
        column = torch.from_numpy(named)
        own.append((column[:, None] == column).float())

    def overlap(other: torch.Tensor) -> NDArray[np.float64]:
        both, either = torch.min(own[0], other).sum(dim=1), torch.max(own[0], other).sum(dim=1)
        return (both / either).double().numpy()

    return Reliability(independence=overlap(own[2]), compactness=overlap(own[1]))


def peak_mib(side: str, num_rows: int, num_features: int) -> float:
    """Return the most memory that JACCARD takes above its features, in a process of its own."""
    command = [sys.executable, "-m", __name__, side, str(num_rows), str(num_features)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout)


def _distances(features: NDArray[np.float32]) -> tuple[Any, NDArray[np.float32]]:
    sparse = jaccard_distance(features, k1=K1, k2=K2, max_distance=REACH)
    return sparse, dense_jaccard(features)


def _sklearn(distance: NDArray[np.float32], eps: float, min_samples: int) -> NDArray[np.int64]:
    from sklearn.cluster import DBSCAN  # a development dependency

    model = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    labels: NDArray[np.int64] = model.fit(distance).labels_
    return labels


def _same_sets(ours: Sequence[NDArray[np.int64]], theirs: Sequence[NDArray[np.int64]]) -> str:
    mine, peers = (np.sort(side[0], axis=1) for side in (ours, theirs))
    share = float((mine == peers).all(axis=1).mean())
    assert share >= 0.999, f"only {share:.2%} of rows have the same neighbours"
    return f"same sets on {share:.2%} of rows"


def _same_labels(ours: Sequence[NDArray[np.int64]], theirs: Sequence[NDArray[np.int64]]) -> str:
    labels = ours[0]
    assert (labels == theirs[0]).all(), f"{(labels != theirs[0]).sum()} labels differ"
    return f"identical labels: {labels.max() + 1} clusters, {(labels < 0).mean():.0%} outliers"


def _same_of_some(ours: Sequence[dict[Any, Any]], theirs: Sequence[dict[Any, Any]]) -> str:
    for run, labels in theirs[0].items():
        _same_labels([ours[0][run]], [labels])
    return f"identical labels on {len(theirs[0])} runs"


def _same_scores(ours: Sequence[Reliability], theirs: Sequence[Reliability]) -> str:
    apart = max(
        float(np.abs(ours[0].independence - theirs[0].independence).max()),
        float(np.abs(ours[0].compactness - theirs[0].compactness).max()),
    )
    assert apart < 1e-6, f"scores differ by {apart}"
    return f"scores within {apart:.0e}"


def main(side: str, num_rows: int, num_features: int) -> None:
    """Print the peak of one side of JACCARD in MiB, code and features not counted."""
    way = {"ours": sparse_labels, "peer": dense_labels}[side]
    features = made_features(num_rows, num_features)
    way(features[:300])  # loads and compiles
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    before = memory_kib("VmRSS")
    way(features)
    print((memory_kib("VmHWM") - before) / 1024)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
