"""Lloyd's iterations over a pool of shards.

Legend: N rows, n rows of one shard, D feature dimensions, K clusters, m replacement rows.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from reid.clustering.nearest import nearest_centers
from reid.clustering.shards import Shard, ShardPool

_LABELS = "lloyd.labels"

# A squared distance to the centre below this share of the row's squared norm is the rounding of the
# centre to float32 (2^-24 per coordinate, so 2^-48 when squared; a factor of 16 to spare).
_COINCIDENT = 2.0**-44


@dataclass(frozen=True, kw_only=True)
class KMeansResult:
    """A clustering of the pool's rows.

    `centers` (K,D) float32; `labels` (N,) int64 in 0..K-1, the nearest centre of each row;
    `inertia` the sum of squared distances of the rows to it; `iterations` assignments made.
    """

    centers: Float32[np.ndarray, "K D"]
    labels: Int64[np.ndarray, "N"]
    inertia: float
    iterations: int


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """What one shard adds to the next centres: `counts` (K,) rows, `sums` (K,D) in grid steps."""

    num_changed: int
    counts: Int64[np.ndarray, "K"]
    sums: Float64[np.ndarray, "K D"]


@dataclass(frozen=True, kw_only=True)
class _Far:
    """The rows of one shard farthest from their centres, the farthest first."""

    dist_sq: Float64[np.ndarray, "m"]
    features: Float32[np.ndarray, "m D"]


def lloyd(
    pool: ShardPool, centers: Float32[np.ndarray, "K D"], *, max_iterations: int
) -> KMeansResult:
    """Move centres (K,D) to the means of their nearest rows until no label changes.

    A cluster without rows is re-seeded with the row farthest from its own centre (of equals the
    lowest row; several at once in the order of their clusters). On convergence the centres are the
    means of their rows. When `max_iterations` ends the search instead, the labels are still the
    nearest of the returned centres, which are then the means of the assignment before.
    Centres and labels are bit-identical for any number of shards. ValueError when fewer distinct
    rows than clusters show up as clusters that cannot be filled.

    Source: Lloyd 1982, "Least squares quantization in PCM", section on Method I.
    """
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}: at least one is needed")
    exponent = _grid_exponent(max(pool.map(_begin)), pool.num_rows)
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        moments = pool.map(_assign, centers, exponent)
        counts = np.sum([part.counts for part in moments], axis=0)
        if counts.all() and not any(part.num_changed for part in moments):
            break
        sums = np.sum([part.sums for part in moments], axis=0)
        means = np.ldexp(sums, exponent) / np.maximum(counts, 1)[:, None]
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            means[empty] = _farthest(pool, centers, len(empty))
        centers = means.astype(np.float32)
    else:
        pool.map(_assign, centers, exponent)
    labels, inertia = zip(*pool.map(_finish, centers), strict=True)
    return KMeansResult(
        centers=centers,
        labels=np.concatenate(labels),
        inertia=float(np.concatenate(inertia).sum()),
        iterations=iterations,
    )


def _grid_exponent(magnitude: float, num_rows: int) -> int:
    """Return the power of two of a grid on which sums of all rows are exact in float64.

    With |x| <= `magnitude` < 2^e and N < 2^b rows, multiples of 2^(e+b-53) add up to less than 2^53
    steps: no addition rounds, so the order of rows and shards does not matter. A value moves by at
    most 2^(b-54) of 2^e, which is below float32's own rounding for every table that fits a cluster.
    """
    return math.frexp(magnitude)[1] + num_rows.bit_length() - 53


def _farthest(
    pool: ShardPool, centers: Float32[np.ndarray, "K D"], count: int
) -> Float32[np.ndarray, "m D"]:
    parts = pool.map(_far_rows, centers, count)
    dist_sq = np.concatenate([part.dist_sq for part in parts])
    order = np.argsort(-dist_sq, kind="stable")[:count]  # parts in row order: lowest row of equals
    if dist_sq[order[0]] == 0:
        distinct = len(centers) - count
        raise ValueError(
            f"num_clusters is {len(centers)} but the {pool.num_rows} rows hold only {distinct} "
            "distinct ones: choose at most that many clusters"
        )
    return np.concatenate([part.features for part in parts])[order]


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _begin(shard: Shard) -> float:
    """Start without labels; return the largest absolute value of the features."""
    shard.state[_LABELS] = np.full(len(shard.features), -1, dtype=np.int64)
    return max(
        (float(np.abs(shard.features[block]).max()) for block in shard.blocks()), default=0.0
    )


def _assign(shard: Shard, centers: Float32[np.ndarray, "K D"], exponent: int) -> _Moments:
    """Label each row with its nearest centre; return what the next centres need."""
    labels = nearest_centers(shard.features, centers)
    num_changed = int(np.count_nonzero(labels != shard.state[_LABELS]))
    shard.state[_LABELS] = labels
    sums = torch.zeros(centers.shape, dtype=torch.float64)
    for block in shard.blocks():
        steps = shard.features[block].astype(np.float64)
        steps *= math.ldexp(1.0, -exponent)
        np.rint(steps, out=steps)
        sums.index_add_(0, torch.from_numpy(labels[block]), torch.from_numpy(steps))
    counts = np.bincount(labels, minlength=len(centers))
    return _Moments(num_changed=num_changed, counts=counts, sums=sums.numpy())


def _row_dist_sq(
    shard: Shard, block: slice, centers: Float32[np.ndarray, "K D"]
) -> Float64[np.ndarray, "n"]:
    offset = shard.features[block] - centers[shard.state[_LABELS][block]]
    dist_sq: np.ndarray = np.square(offset, dtype=np.float64).sum(axis=1)
    return dist_sq


def _far_rows(shard: Shard, centers: Float32[np.ndarray, "K D"], count: int) -> _Far:
    dist_sq = np.zeros(len(shard.features))
    for block in shard.blocks():
        part = _row_dist_sq(shard, block, centers)
        sq_norms = np.square(shard.features[block], dtype=np.float64).sum(axis=1)
        dist_sq[block] = np.where(part > _COINCIDENT * sq_norms, part, 0)
    order = np.argsort(-dist_sq, kind="stable")[:count]
    return _Far(dist_sq=dist_sq[order], features=shard.features[order])


def _finish(
    shard: Shard, centers: Float32[np.ndarray, "K D"]
) -> tuple[Int64[np.ndarray, "n"], Float64[np.ndarray, "blocks"]]:
    """Return the labels, and the inertia of each block."""
    inertia = [_row_dist_sq(shard, block, centers).sum() for block in shard.blocks()]
    return shard.state[_LABELS], np.array(inertia, dtype=np.float64)
