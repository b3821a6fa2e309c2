"""Two-level k-means for very many clusters: cells first, then the clusters of each cell.

A row meets the centres of the cells and those of its own cell, about 2 sqrt(K) instead of K. What
the edges of cells cut apart (10 to 20 % of inertia on features of overlapping identities) an
iteration or two over all centres mend (1 to 4 % left).

Legend: N rows, n rows of one shard, D feature dimensions, K clusters, S cells.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64
from numpy.random import Generator, Philox, SeedSequence

from reid.clustering.kmeans import kmeans
from reid.clustering.lloyd import KMeansResult, lloyd
from reid.clustering.parallel import GREEDY_CLUSTERS
from reid.clustering.parts import PartPool
from reid.clustering.seed_candidates import begin
from reid.clustering.seeding import check_num_clusters, default_trials, grow
from reid.clustering.shards import Shard, ShardPool

FLAT_CLUSTERS = 50_000
"""Clusters up to which one level is enough."""

_STATE = "hierarchy"
_PART = "hierarchy.cell"


@dataclass(frozen=True, kw_only=True)
class _Division:
    """A shard's first row, and how many of its rows are in each cell (S,)."""

    first: int
    sizes: Int64[np.ndarray, "S"]


def hierarchical_kmeans(
    pool: ShardPool,
    num_clusters: int,
    *,
    seed: int,
    num_cells: int | None = None,
    flat_clusters: int = FLAT_CLUSTERS,
    flat_iterations: int = 1,
    max_iterations: int = 100,
    tolerance: float = 0.0,
) -> KMeansResult:
    """Cluster the pool's rows on two levels when there are more than `flat_clusters` clusters.

    k-means makes `num_cells` cells (default: the square root of the number of clusters); each
    cell's rows are clustered alone, into clusters in proportion to its rows. `flat_iterations` over
    all centres follow; they cost N * K each, and without them a label is the nearest centre of the
    row's own cell, not always of all. `iterations` are those of the cells, the most within a cell
    and these. Up to `flat_clusters` clusters this is `kmeans`, and the rest is as there. ValueError
    also for fewer than one cell and for more cells than clusters.
    """
    check_num_clusters(num_clusters, pool.num_rows)
    if num_clusters <= flat_clusters:
        return kmeans(
            pool, num_clusters, seed=seed, max_iterations=max_iterations, tolerance=tolerance
        )
    cells = math.isqrt(num_clusters) if num_cells is None else num_cells
    if not 1 <= cells <= num_clusters:
        raise ValueError(f"num_cells is {cells}: choose from 1 to num_clusters, {num_clusters}")
    return pool.run(
        _hierarchical,
        num_clusters,
        cells,
        seed=seed,
        flat_iterations=flat_iterations,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )


def _hierarchical(
    pool: ShardPool,
    num_clusters: int,
    num_cells: int,
    *,
    seed: int,
    flat_iterations: int,
    max_iterations: int,
    tolerance: float,
) -> KMeansResult:
    init: Literal["greedy", "parallel"] = "greedy" if num_cells <= GREEDY_CLUSTERS else "parallel"
    cells = kmeans(
        pool, num_cells, seed=seed, init=init, max_iterations=max_iterations, tolerance=tolerance
    )
    divided = pool.map(_divide, cells.labels, num_cells)
    sizes = np.array([part.sizes for part in divided])
    before = np.cumsum(sizes, axis=0) - sizes
    sizes = sizes.sum(axis=0)
    shares = shares_of(sizes, num_clusters)
    order = np.split(np.argsort(cells.labels, kind="stable"), np.cumsum(sizes)[:-1])
    labels = np.empty(pool.num_rows, dtype=np.int64)
    centers: list[Float32[np.ndarray, "k D"]] = []
    inertia, iterations, made, missing = 0.0, 0, 0, 0
    for cell in np.argsort(sizes, kind="stable").tolist():  # larger ones make up for equal rows
        missing += int(shares[cell])
        first_rows = {
            part.first: int(low) for part, low in zip(divided, before[:, cell], strict=True)
        }
        pool.map(_hold, cell, first_rows)
        rows = PartPool(pool, _PART, num_rows=int(sizes[cell]))
        wanted = min(missing, rows.num_rows)
        generator = Generator(Philox(SeedSequence([seed, cell])))
        seeds = grow(
            rows, wanted, num_trials=default_trials(wanted), generator=generator, first=True
        )
        found = lloyd(rows, seeds.features, max_iterations=max_iterations, tolerance=tolerance)
        labels[order[cell]] = made + found.labels
        centers.append(found.centers)
        inertia += found.inertia
        iterations = max(iterations, found.iterations)
        made += len(found.centers)
        missing -= len(found.centers)
    pool.map(_end)
    if missing:
        raise ValueError(
            f"num_clusters is {num_clusters} but the rows of the {num_cells} cells hold only "
            f"{made} distinct ones where clusters are due: choose fewer clusters or fewer cells"
        )
    result = KMeansResult(
        centers=np.concatenate(centers),
        labels=labels,
        inertia=inertia,
        iterations=cells.iterations + iterations,
    )
    if flat_iterations:
        flat = lloyd(pool, result.centers, max_iterations=flat_iterations, tolerance=tolerance)
        result = replace(flat, iterations=flat.iterations + result.iterations)
    return result


def shares_of(sizes: Int64[np.ndarray, "S"], total: int) -> Int64[np.ndarray, "S"]:
    """Divide a total (from S up to the sum of sizes) in proportion to sizes (S,).

    Each gets at least 1 and at most its size; remainders go to the largest fractions first.
    """
    exact = sizes * (total / sizes.sum())
    shares: np.ndarray = np.clip(exact.astype(np.int64), 1, sizes)
    while (rest := total - shares.sum()) != 0:
        step = np.sign(rest)
        open_to_it = np.flatnonzero(shares < sizes if rest > 0 else shares > 1)
        lag = step * (exact - shares)[open_to_it]
        shares[open_to_it[np.argsort(-lag, kind="stable")[: abs(rest)]]] += step
    return shares


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _divide(shard: Shard, labels: Int64[np.ndarray, "N"], num_cells: int) -> _Division:
    """Order the shard's rows by cell."""
    own = labels[shard.start : shard.start + len(shard.features)]
    sizes = np.bincount(own, minlength=num_cells)
    shard.state[_STATE] = np.split(np.argsort(own, kind="stable"), np.cumsum(sizes)[:-1])
    return _Division(first=shard.start, sizes=sizes)


def _hold(shard: Shard, cell: int, first_rows: dict[int, int]) -> None:
    """Set up one cell's rows as a part, and a start without centres."""
    rows = shard.state[_STATE][cell]
    part = Shard(first_rows[shard.start], shard.features[rows])
    begin(part)
    shard.state[_PART] = part


def _end(shard: Shard) -> None:
    shard.state.pop(_PART)
    shard.state.pop(_STATE)
