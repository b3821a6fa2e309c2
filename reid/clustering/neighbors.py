"""Exact nearest neighbours of features. `search.py` says how, and for lists by camera.

Legend: N rows, D feature dimensions, k neighbours.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from reid.clustering.listing import Neighbors, Wanted
from reid.clustering.search import search
from reid.clustering.shards import ShardPool, split

Rows = Float[np.ndarray, "..."] | Float[Tensor, "..."] | ShardPool
"""A table of features (N,D), array or tensor, or a pool that holds one."""


def as_pool(rows: Rows) -> ShardPool:
    """Return a pool as it is, and features (N,D) as one local shard; ValueError as for `split`."""
    return rows if isinstance(rows, ShardPool) else split(rows, 1)


def nearest_neighbors(rows: Rows, k: int) -> Neighbors:
    """Return the `k` nearest rows of each row, itself first, of features (N,D) or a pool of them.

    The distance is the squared L2 distance: differences squared and summed in float64, the sum
    rounded to float32. Of these numbers the answer is exact; equal ones are in order of index, but
    every row comes first in its own list. It is bit-identical for any number of shards, and on any
    processor but for the order of that sum. ValueError when `k` is not in 1..N, as for `split`, and
    for rows so long that float32 cannot hold their squares.
    """
    pool = as_pool(rows)
    if not 1 <= k <= pool.num_rows:
        raise ValueError(
            f"k is {k} and there are {pool.num_rows} rows: choose from 1 up to the number of rows"
        )
    return pool.run(_nearest, k)


def _nearest(pool: ShardPool, k: int) -> Neighbors:
    return search(pool, [Wanted(k=k)]).lists[0]
