"""Slow references that several test files share, over all pairs of rows.

Legend: N rows, D feature dimensions.
"""

import numpy as np
from scipy import sparse

from reid.types import OUTLIER


def squared(rows: np.ndarray) -> np.ndarray:
    """Return squared distances (N,N) of rows (N,D), in float64."""
    wide = rows.astype(np.float64)
    distance: np.ndarray = ((wide[:, None] - wide) ** 2).sum(axis=2)
    return distance


def dense(distance: sparse.csr_array, *, missing: float = 1.0) -> np.ndarray:
    """Return all distances (N,N), `missing` where none is stored."""
    full = np.full(distance.shape, missing, dtype=distance.dtype)
    entries = distance.tocoo()
    full[entries.row, entries.col] = entries.data
    return full


def stored(distance: np.ndarray) -> sparse.csr_array:
    """Return the distances below 1, zeros included."""
    where = np.nonzero(distance < 1)
    return sparse.csr_array((distance[where], where), distance.shape)


def made_distance(num_rows: int, *, seed: int) -> np.ndarray:
    """Return distances in 0..1 with clusters that a small change of radius breaks."""
    rng = np.random.Generator(np.random.Philox(seed))
    points = rng.normal(size=(num_rows // 12, 3))[rng.integers(num_rows // 12, size=num_rows)]
    points = points + 0.25 * rng.normal(size=points.shape)
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    return np.minimum(distance, 1).astype(np.float32)


def partition(labels: np.ndarray) -> np.ndarray:
    """Return labels renamed by first appearance."""
    _, first, names = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[names]


def alone(labels: np.ndarray) -> np.ndarray:
    """Return labels with a new one for each outlier."""
    own = labels.copy()
    outliers = np.flatnonzero(labels == OUTLIER)
    own[outliers] = labels.max(initial=-1) + 1 + np.arange(len(outliers))
    return own


def neighbor_agreement(
    features: np.ndarray, labels: np.ndarray, rows: np.ndarray, k: int
) -> float | None:
    """Return the share of nearest rows with a row's label, averaged over `rows` of the table."""
    dist_sq = squared(features)
    np.fill_diagonal(dist_sq, np.inf)
    shares = []
    for row in rows:
        same = labels == labels[row]
        wanted = min(k, same.sum() - 1)
        if labels[row] != OUTLIER and wanted:
            order = np.lexsort((~same, dist_sq[row]))[:wanted]
            shares.append(same[order].mean())
    return float(np.mean(shares)) if shares else None
