"""DBSCAN on a sparse matrix of distances, in time proportional to its entries.

Legend: N rows, M stored distances, P rows and one more.
"""

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64
from scipy import sparse

from reid.compiled import compiled
from reid.types import OUTLIER


def dbscan(
    distance: sparse.csr_array | sparse.csr_matrix, *, eps: float, min_samples: int = 4
) -> Int64[np.ndarray, "N"]:
    """Return DBSCAN's clusters (N,) of distances (N,N), `OUTLIER` for rows in none.

    Rows within `eps` are neighbours; what is not stored is too far, but each row is its own
    neighbour. Rows with at least `min_samples` neighbours, themselves included, are cores; clusters
    are the cores that neighbourhood connects, in the order of their first cores, and a row that is
    no core joins the first cluster with a core near it. The labels are scikit-learn's
    `DBSCAN(metric="precomputed")` on the same matrix. The same matrix serves any `eps` up to
    the one it was made for. ValueError when it is not square, or an entry negative or NaN, when
    `eps` is not above 0 and when `min_samples` is below 1.

    Source: Ester et al. 1996, "A density-based algorithm for discovering clusters".
    """
    num_rows, num_columns = distance.shape
    if num_rows != num_columns:
        raise ValueError(f"distances have shape {distance.shape}: expected a square matrix")
    if not eps > 0 or min_samples < 1:
        raise ValueError(
            f"eps is {eps} and min_samples {min_samples}: choose eps above 0, min_samples from 1 on"
        )
    if not distance.has_canonical_format:
        distance = distance.copy()  # the caller's stays as it is
        distance.sum_duplicates()
    if distance.nnz and not distance.data.min() >= 0:
        raise ValueError("a distance is negative or NaN: look at the features it was made of")
    radius = distance.data.dtype.type(eps)  # as numpy compares an array with a Python number
    start, column, near = distance.indptr, distance.indices, distance.data <= radius
    core = _num_neighbors(start, column, near) >= min_samples
    return _connect(start, column, near, core)


def mean_of_smallest(distance: sparse.csr_array | sparse.csr_matrix, share: float) -> float:
    """Return the mean of the smallest `share` of the distances between two rows, a value for `eps`.

    `distance` (N,N) is symmetric and as `jaccard_distance` makes it with its `max_distance` of 1:
    what is not stored is 1. Pairs of equal rows, at distance 0, do not count. At least one distance
    is taken. ValueError when `share` is not above 0 and up to 1, and when all rows are equal.

    Source: MMT's released code, with a share of 1.6e-3; spcl_inclr.md, section 2.3.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: choose above 0 and up to 1, which takes all distances")
    entries = distance.tocoo()
    stored = entries.data[entries.row < entries.col]
    positive = np.sort(stored[stored > 0]).astype(np.float64)
    num_rows = distance.shape[0]
    num_pairs = num_rows * (num_rows - 1) // 2 - (len(stored) - len(positive))
    if not num_pairs:
        raise ValueError(
            f"no two of {num_rows} rows differ, so no distance says how near neighbours are: look "
            "at the features"
        )
    count = max(int(np.round(share * num_pairs)), 1)
    near = positive[:count]
    return float((near.sum() + (count - len(near))) / count)


@compiled
def _num_neighbors(
    start: Int[np.ndarray, "P"], column: Int[np.ndarray, "M"], near: Bool[np.ndarray, "M"]
) -> Int32[np.ndarray, "N"]:
    """Return how many columns are near each row, the row itself among them unless stored as far."""
    count = np.zeros(start.size - 1, np.int32)
    for row in range(count.size):
        stored, here = False, 0
        for entry in range(start[row], start[row + 1]):
            stored |= column[entry] == row
            here += near[entry]
        count[row] = here + (not stored)
    return count


@compiled
def _connect(
    start: Int[np.ndarray, "P"],
    column: Int[np.ndarray, "M"],
    near: Bool[np.ndarray, "M"],
    core: Bool[np.ndarray, "N"],
) -> Int64[np.ndarray, "N"]:
    """Give each core not yet in a cluster a new one, and that to all it is connected to."""
    label = np.full(core.size, OUTLIER, np.int64)
    waiting = np.empty(core.size, np.int64)
    num_clusters = 0
    for first in range(core.size):
        if not core[first] or label[first] != OUTLIER:
            continue
        label[first], waiting[0], size = num_clusters, first, 1
        while size:
            size -= 1
            row = waiting[size]
            for entry in range(start[row], start[row + 1]):
                other = column[entry]
                if near[entry] and label[other] == OUTLIER:
                    label[other] = num_clusters
                    if core[other]:
                        waiting[size] = other
                        size += 1
        num_clusters += 1
    return label
