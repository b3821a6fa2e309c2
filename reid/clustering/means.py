"""Means of clusters over a pool of shards, from sums that are exact in any order.

Legend: N rows, n rows of one shard, D feature dimensions, K clusters, t clusters with rows on one
shard, e entries: rows to be added.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from reid.clustering.shards import Shard, ShardPool
from reid.compiled import compiled
from reid.types import OUTLIER


@dataclass(frozen=True, kw_only=True)
class GridSums:
    """Of some `clusters` (t,): `counts` (t,) of rows, `sums` (t,D) in steps of the grid.

    Both count what was added less what was taken out.
    """

    clusters: Int64[np.ndarray, "t"]
    counts: Int64[np.ndarray, "t"]
    sums: Float64[np.ndarray, "t D"]


def cluster_means(pool: ShardPool, labels: Int64[np.ndarray, "N"]) -> Float32[np.ndarray, "K D"]:
    """Return the mean of the rows of each cluster 0..K-1, not of unit length; outliers count not.

    (0,D) where all rows are outliers. Bit-identical for any number of shards and on any processor.
    ValueError when there is not one label a row, for one below `OUTLIER`, and when a cluster
    between 0 and the largest label has no row.
    """
    if len(labels) != pool.num_rows:
        raise ValueError(f"{len(labels)} labels for {pool.num_rows} rows: give one for each")
    if labels.min(initial=0) < OUTLIER:
        raise ValueError(f"a label is below {OUTLIER}, which marks outliers: label from 0 on")
    empty = np.flatnonzero(np.bincount(labels[labels != OUTLIER]) == 0)
    if len(empty):
        raise ValueError(
            f"{len(empty)} clusters have no row, {empty[0]} the first: number those with rows from "
            "0 on"
        )
    return pool.run(_means, labels)


def _means(pool: ShardPool, labels: Int64[np.ndarray, "N"]) -> Float32[np.ndarray, "K D"]:
    num_clusters = int(labels.max(initial=OUTLIER)) + 1
    exponent = grid_exponent(max(pool.map(largest_value)), pool.num_rows)
    counts = np.zeros(num_clusters, dtype=np.int64)
    sums = np.zeros((num_clusters, pool.num_features))
    for part in pool.map(_sum, labels, exponent):
        counts[part.clusters] += part.counts
        sums[part.clusters] += part.sums
    means: np.ndarray = (np.ldexp(sums, exponent) / counts[:, None]).astype(np.float32)
    return means


def grid_exponent(magnitude: float, num_rows: int) -> int:
    """Return the power of two of a grid on which sums of all rows are exact in float64.

    With |x| <= `magnitude` < 2^e and N < 2^b rows, multiples of 2^(e+b-53) add up to less than 2^53
    steps: no addition rounds, so the order of rows and shards does not matter, and rows can be
    taken out again. A value moves by at most 2^(b-54) of 2^e, which is below float32's own rounding
    for every table that fits a cluster.
    """
    return math.frexp(magnitude)[1] + num_rows.bit_length() - 53


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def largest_value(shard: Shard) -> float:
    """Return the largest absolute value of a shard's features, 0 without rows."""
    return max(
        (float(np.abs(shard.features[block]).max()) for block in shard.blocks()), default=0.0
    )


def _sum(shard: Shard, labels: Int64[np.ndarray, "N"], exponent: int) -> GridSums:
    own = labels[shard.start : shard.start + len(shard.features)]
    row = np.flatnonzero(own != OUTLIER)
    return grid_sums(shard.features, row, own[row], np.ones(len(row)), exponent)


def grid_sums(
    features: Float32[np.ndarray, "n D"],
    row: Int64[np.ndarray, "e"],
    cluster: Int64[np.ndarray, "e"],
    sign: Float64[np.ndarray, "e"],
    exponent: int,
) -> GridSums:
    """Add `sign` (1 or -1) times features[row] to the sum of its cluster, entry by entry."""
    order = np.argsort(cluster, kind="stable")  # so that a cluster's sum stays in the cache
    clusters, place = np.unique(cluster[order], return_inverse=True)
    sums = np.zeros((len(clusters), features.shape[1]))
    steps_per_unit = math.ldexp(1.0, -exponent)
    _add_rows(np.asarray(features), row[order], place, sign[order], steps_per_unit, sums)
    counts = np.bincount(place, sign[order], len(clusters)).astype(np.int64)
    return GridSums(clusters=clusters, counts=counts, sums=sums)


@compiled
def _add_rows(
    features: Float32[np.ndarray, "n D"],
    row: Int64[np.ndarray, "e"],
    place: Int64[np.ndarray, "e"],
    sign: Float64[np.ndarray, "e"],
    steps_per_unit: float,
    sums: Float64[np.ndarray, "t D"],
) -> None:
    for entry in range(len(row)):
        values, total, weight = features[row[entry]], sums[place[entry]], sign[entry]
        for d in range(len(total)):
            total[d] += weight * np.rint(np.float64(values[d]) * steps_per_unit)
