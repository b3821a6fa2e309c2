"""Do the parts of an image have the neighbours that the whole has?

Legend: N rows, D feature dimensions, P parts, k neighbours.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from reid.clustering.neighbors import Rows, as_pool, nearest_neighbors
from reid.clustering.shards import ShardPool


def cross_agreement(
    global_features: Rows,
    part_features: Float[np.ndarray, "N D P"] | Float[Tensor, "N D P"] | Sequence[Rows],
    *,
    k: int = 20,
) -> Float64[np.ndarray, "N P"]:
    """Return for each row and part how far their k nearest rows are the global feature's.

    Intersection over union of the two sets of nearest rows by L2, the row itself excluded; with
    fewer than k other rows all of them count. Features are arrays, or pools of the same rows, one
    for each part. Bit-identical for any number of shards. ValueError when `k` is below 1, with
    fewer than two rows, without parts or with other numbers of rows, and as for `split`.

    Source: Cho et al. 2022, "Part-based pseudo label refinement for unsupervised person
    re-identification", cross agreement score; spcl_inclr.md, section 3.3.
    """
    if not isinstance(part_features, Sequence):
        part_features = [part_features[:, :, part] for part in range(part_features.shape[2])]
    whole, *parts = (as_pool(rows) for rows in (global_features, *part_features))
    num_rows = whole.num_rows
    if k < 1 or num_rows < 2:
        raise ValueError(f"k is {k} and there are {num_rows} rows: both need to be larger")
    if {part.num_rows for part in parts} != {num_rows}:
        counts = [part.num_rows for part in parts]
        raise ValueError(f"parts have {counts} rows, the whole has {num_rows}: give parts of each")
    k = min(k, num_rows - 1)
    mine = _named(whole, k)
    scores = np.empty((num_rows, len(parts)))
    for column, part in enumerate(parts):
        shared = np.isin(_named(part, k), mine, assume_unique=True).sum(axis=1)
        scores[:, column] = shared / (2 * k - shared)
    return scores


def _named(pool: ShardPool, k: int) -> Int64[np.ndarray, "N k"]:
    """Return the k nearest others of each row, as numbers that also tell the row."""
    nearest = nearest_neighbors(pool, k + 1).indices[:, 1:]
    named: np.ndarray = nearest + len(nearest) * np.arange(len(nearest))[:, None]
    return named
