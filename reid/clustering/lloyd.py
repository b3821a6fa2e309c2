"""Lloyd's iterations over a pool of shards.

An iteration costs what changes in it: rows meet the centres that moved (`assignment.follow`), and
the sums of clusters are corrected by the rows that came and went, exactly (`means.grid_exponent`).

Legend: N rows, n rows of one shard, D feature dimensions, K clusters, m replacement rows.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from reid.clustering.assignment import NOTHING, Assignment, follow, nothing_found
from reid.clustering.codes import coded_rows
from reid.clustering.means import GridSums, grid_exponent, grid_sums, largest_value
from reid.clustering.shards import Shard, ShardPool

_STATE = "lloyd"

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
class _Change:
    """What one shard's new labels change."""

    num_changed: int
    sums: GridSums


@dataclass(frozen=True, kw_only=True)
class _Far:
    """The rows of one shard farthest from their centres, the farthest first."""

    dist_sq: Float32[np.ndarray, "m"]
    features: Float32[np.ndarray, "m D"]


def lloyd(
    pool: ShardPool,
    centers: Float32[np.ndarray, "K D"],
    *,
    max_iterations: int,
    tolerance: float = 0.0,
) -> KMeansResult:
    """Move centres (K,D) to the means of their nearest rows until no label changes.

    A cluster without rows is re-seeded with the row farthest from its own centre (of equals the
    lowest row; several at once in the order of their clusters). On convergence the centres are the
    means of their rows. When `max_iterations` ends the search instead, or no more than a share
    `tolerance` of the rows changes its label, the labels are still the nearest of the returned
    centres, which are then the means of the assignment before.
    Bit-identical for any number of shards and on any processor. ValueError when fewer distinct rows
    than clusters show up as clusters that cannot be filled.

    Source: Lloyd 1982, "Least squares quantization in PCM", section on Method I.
    """
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}: at least one is needed")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: a share of rows from 0 to below 1")
    exponent = grid_exponent(max(pool.map(_begin)), pool.num_rows)
    centers = centers.copy()
    counts = np.zeros(len(centers), dtype=np.int64)
    sums = np.zeros(centers.shape)
    moved = np.arange(len(centers))
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        changes = pool.map(_assign, centers, moved, exponent)
        for part in (change.sums for change in changes):
            counts[part.clusters] += part.counts
            sums[part.clusters] += part.sums
        num_changed = sum(change.num_changed for change in changes)
        if counts.all() and num_changed <= tolerance * pool.num_rows:
            break
        touched = np.unique(np.concatenate([change.sums.clusters for change in changes]))
        filled, empty = touched[counts[touched] > 0], np.flatnonzero(counts == 0)
        replaced = np.concatenate([filled, empty])
        means = np.ldexp(sums[filled], exponent) / counts[filled, None]
        new = means.astype(np.float32)
        if len(empty):
            new = np.concatenate([new, _farthest(pool, len(centers), len(empty))])
        moved = np.sort(replaced[(new != centers[replaced]).any(axis=1)])
        centers[replaced] = new
    else:
        pool.map(_assign, centers, moved, exponent)
    labels, dist_sq = zip(*pool.map(_finish), strict=True)
    return KMeansResult(
        centers=centers,
        labels=np.concatenate(labels),
        inertia=float(np.concatenate(dist_sq).sum(dtype=np.float64)),
        iterations=iterations,
    )


def _farthest(pool: ShardPool, num_clusters: int, count: int) -> Float32[np.ndarray, "m D"]:
    parts = pool.map(_far_rows, count)
    dist_sq = np.concatenate([part.dist_sq for part in parts])
    order = np.argsort(-dist_sq, kind="stable")[:count]  # parts in row order: lowest row of equals
    if dist_sq[order[0]] == 0:
        raise ValueError(
            f"num_clusters is {num_clusters} but the {pool.num_rows} rows hold only "
            f"{num_clusters - count} distinct ones: choose at most that many clusters"
        )
    return np.concatenate([part.features for part in parts])[order]


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _begin(shard: Shard) -> float:
    """Start without labels; return the largest absolute value of the features."""
    shard.state[_STATE] = nothing_found(len(shard.features))
    return largest_value(shard)


def _assign(
    shard: Shard,
    centers: Float32[np.ndarray, "K D"],
    moved: Int64[np.ndarray, "m"],
    exponent: int,
) -> _Change:
    """Label each row with its nearest centre; return what the next centres need."""
    found: Assignment = shard.state[_STATE]
    before = found.label.copy()
    follow(coded_rows(shard), centers, moved, found)
    came = np.flatnonzero(found.label != before)
    went = came[before[came] != NOTHING]
    row = np.concatenate([came, went])
    cluster = np.concatenate([found.label[came], before[went]])
    sign = np.repeat([1.0, -1.0], [len(came), len(went)])
    sums = grid_sums(shard.features, row, cluster, sign, exponent)
    return _Change(num_changed=len(came), sums=sums)


def _far_rows(shard: Shard, count: int) -> _Far:
    found: Assignment = shard.state[_STATE]
    dist_sq = found.dist_sq.copy()
    for block in shard.blocks():
        sq_norms = np.square(shard.features[block], dtype=np.float64).sum(axis=1)
        dist_sq[block][dist_sq[block] <= _COINCIDENT * sq_norms] = 0
    order = np.argsort(-dist_sq, kind="stable")[:count]
    return _Far(dist_sq=dist_sq[order], features=shard.features[order])


def _finish(shard: Shard) -> tuple[Int64[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
    """Return the labels, and the squared distance of each row to its centre."""
    found: Assignment = shard.state.pop(_STATE)
    return found.label, found.dist_sq
