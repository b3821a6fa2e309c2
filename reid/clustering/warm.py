"""Centres of an earlier clustering made fit to begin another.

Legend: N rows, n rows of one shard, D feature dimensions, K centres, P pairs of centres.
"""

import math

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from numpy.random import Generator, Philox

from reid.clustering.assignment import Assignment, nothing_found, search
from reid.clustering.codes import code_rows, coded_rows
from reid.clustering.distance import TILE, open_pairs
from reid.clustering.seed_candidates import begin_from
from reid.clustering.seeding import check_num_clusters, check_num_distinct, default_trials, grow
from reid.clustering.shards import Shard, ShardPool

_STATE = "warm"
_MERGED = 2.0  # times the squared distance by which two means of the same rows differ by chance


def warm_centers(
    pool: ShardPool, centers: Float[np.ndarray, "K D"], *, seed: int, num_trials: int | None = None
) -> Float32[np.ndarray, "K D"]:
    """Return centres (K,D) for `kmeans(init=...)`: those given, but empty and merged ones anew.

    Best given are the means of the pool's rows by the last round's labels. A centre is empty when
    no row is nearest to it. Two are merged when they are no further apart than means of samples of
    one cluster may be: d^2 <= 2 (v_i / n_i + v_j / n_j), n being the rows nearest to a centre and v
    their mean squared distance to it; the one with fewer rows goes. Those are drawn again like the
    further centres of `greedy_kmeans_plusplus`, given the ones that stay; `seed` and `num_trials`
    are for that. Bit-identical for any number of shards and on any processor. ValueError for
    centres that do not fit the pool, and when there are fewer distinct rows than centres.
    """
    check_num_clusters(len(centers), pool.num_rows)
    if centers.shape[1] != pool.num_features or not np.isfinite(centers).all():
        raise ValueError(
            f"centers have shape {centers.shape}: expected finite numbers in "
            f"{pool.num_features} columns, as the pool's rows have"
        )
    given = np.ascontiguousarray(centers, dtype=np.float32)
    trials = default_trials(len(centers)) if num_trials is None else num_trials
    return pool.run(_warm, given, seed=seed, num_trials=trials)


def _warm(
    pool: ShardPool, centers: Float32[np.ndarray, "K D"], *, seed: int, num_trials: int
) -> Float32[np.ndarray, "K D"]:
    largest = max(pool.map(_assign, centers))
    exponent = 62 - pool.num_rows.bit_length() - math.frexp(largest)[1]
    tallies = pool.map(_tally, len(centers), exponent)
    num_rows, sums = (np.sum(parts, axis=0) for parts in zip(*tallies, strict=True))
    spread = np.ldexp(sums.astype(np.float64), -exponent) / np.maximum(num_rows, 1)
    gone = num_rows == 0
    for i, j in _merged(centers, num_rows, spread):
        if not gone[i] and not gone[j]:
            gone[i if num_rows[i] < num_rows[j] else j] = True
    if not gone.any():
        return centers
    pool.map(begin_from, centers[~gone])
    generator = Generator(Philox(seed))
    number = int(gone.sum())
    seeds = grow(pool, number, num_trials=num_trials, generator=generator, first=False)
    check_num_distinct(len(centers), pool.num_rows, len(centers) - number + len(seeds.rows))
    result = centers.copy()
    result[gone] = seeds.features
    return result


def _merged(
    centers: Float32[np.ndarray, "K D"],
    num_rows: Int64[np.ndarray, "K"],
    spread: Float64[np.ndarray, "K"],
) -> list[tuple[int, int]]:
    """Return the pairs of centres as near as chance may bring them, the nearest pairs first."""
    filled = np.flatnonzero(num_rows)
    chance = _MERGED * spread[filled] / num_rows[filled]
    coded = code_rows(centers[filled])
    pairs: list[tuple[float, int, int]] = []
    for low in range(0, len(filled), TILE):
        for first in range(0, len(filled), TILE):
            limit = (chance[low : low + TILE] + chance.max()).astype(np.float32)
            found = open_pairs(
                coded[low : low + TILE], coded[first : first + TILE], limit, only_nearest=False
            )
            i, j = found.row + low, found.column + first
            near = (i < j) & (found.dist_sq <= chance[i] + chance[j])
            ends = (filled[i[near]].tolist(), filled[j[near]].tolist())
            pairs += zip(found.dist_sq[near].tolist(), *ends, strict=True)
    return [(i, j) for _, i, j in sorted(pairs)]


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _assign(shard: Shard, centers: Float32[np.ndarray, "K D"]) -> float:
    """Find each row's nearest centre; return the largest squared distance to it."""
    found = nothing_found(len(shard.features))
    rows = coded_rows(shard)
    search(rows, rows.code(centers), np.arange(len(centers)), found)
    shard.state[_STATE] = found
    return float(found.dist_sq.max(initial=0))


def _tally(
    shard: Shard, num_centers: int, exponent: int
) -> tuple[Int64[np.ndarray, "K"], Int64[np.ndarray, "K"]]:
    """Return each centre's rows and the sum of their squared distances, in steps, exact."""
    found: Assignment = shard.state.pop(_STATE)
    sums = np.zeros(num_centers, dtype=np.int64)
    steps = np.ldexp(found.dist_sq.astype(np.float64), exponent).astype(np.int64)
    np.add.at(sums, found.label, steps)
    return np.bincount(found.label, minlength=num_centers), sums
