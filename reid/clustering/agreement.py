"""Do the parts of an image have the neighbours that the whole has?

Legend: N rows, D feature dimensions, P parts, k neighbours.
"""

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from reid.clustering.neighbors import nearest_neighbors


def cross_agreement(
    global_features: Float[np.ndarray, "N D"] | Float[Tensor, "N D"],
    part_features: Float[np.ndarray, "N D P"] | Float[Tensor, "N D P"],
    *,
    k: int = 20,
) -> Float64[np.ndarray, "N P"]:
    """Return for each row and part how far their k nearest rows are the global feature's.

    Intersection over union of the two sets of nearest rows by L2, the row itself excluded; with
    fewer than k other rows all of them count. ValueError when `k` is below 1, as for `split`, and
    with fewer than two rows.

    Source: Cho et al. 2022, "Part-based pseudo label refinement for unsupervised person
    re-identification", cross agreement score; spcl_inclr.md, section 3.3.
    """
    num_rows, _, num_parts = part_features.shape
    if k < 1 or num_rows < 2:
        raise ValueError(f"k is {k} and there are {num_rows} rows: both need to be larger")
    k = min(k, num_rows - 1)
    whole = _named(global_features, k)
    scores = np.empty((num_rows, num_parts))
    for part in range(num_parts):
        mine = _named(part_features[:, :, part], k)
        shared = np.isin(mine, whole, assume_unique=True).sum(axis=1)
        scores[:, part] = shared / (2 * k - shared)
    return scores


def _named(
    features: Float[np.ndarray, "N D"] | Float[Tensor, "N D"], k: int
) -> Int64[np.ndarray, "N k"]:
    """Return the k nearest others of each row, as numbers that also tell the row."""
    nearest = nearest_neighbors(features, k + 1).indices[:, 1:]
    named: np.ndarray = nearest + len(nearest) * np.arange(len(nearest))[:, None]
    return named
