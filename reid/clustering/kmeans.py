"""k-means over a pool of shards: first centres, then Lloyd's iterations.

Legend: N rows, D feature dimensions, K clusters.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from reid.clustering.guards import check_distinct
from reid.clustering.lloyd import KMeansResult, lloyd
from reid.clustering.parallel import parallel_seeds
from reid.clustering.seeding import check_num_clusters, greedy_seeds
from reid.clustering.shards import ShardPool


def kmeans(
    pool: ShardPool,
    num_clusters: int,
    *,
    seed: int,
    max_iterations: int = 100,
    init: Literal["greedy", "parallel"] | Float[np.ndarray, "K D"] = "greedy",
    tolerance: float = 0.0,
) -> KMeansResult:
    """Cluster the pool's rows into `num_clusters` groups of least squared distance to their mean.

    `init` says where the centres begin: "greedy" k-means++ with `seed`; "parallel" k-means||, for
    more than `parallel.GREEDY_CLUSTERS`; or an array (K,D), `seed` then being unused, such as
    `warm_centers` makes of the last round's. See `lloyd` for the iterations, `tolerance` and the
    result, which is bit-identical for any number of shards and on any processor. ValueError when
    there are fewer rows, or fewer distinct rows, than clusters, and for an `init` of another name
    or shape.
    """
    if isinstance(init, str) and init not in ("greedy", "parallel"):
        raise ValueError(f"init is {init!r}: expected 'greedy', 'parallel' or an array of centres")
    check_num_clusters(num_clusters, pool.num_rows)
    check_distinct(pool, num_clusters)
    return pool.run(
        _kmeans,
        num_clusters,
        seed=seed,
        init=init,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )


def _kmeans(
    pool: ShardPool,
    num_clusters: int,
    *,
    seed: int,
    init: str | Float[np.ndarray, "K D"],
    max_iterations: int,
    tolerance: float,
) -> KMeansResult:
    if isinstance(init, str):
        seeds = greedy_seeds if init == "greedy" else parallel_seeds
        centers = seeds(pool, num_clusters, seed=seed).features
    else:
        expected = (num_clusters, pool.num_features)
        if init.shape != expected or not np.isfinite(init).all():
            raise ValueError(f"init has shape {init.shape}: expected {expected} of finite numbers")
        centers = np.ascontiguousarray(init, dtype=np.float32)
    return lloyd(pool, centers, max_iterations=max_iterations, tolerance=tolerance)


def kmeans_sweep(
    pool: ShardPool,
    counts: Sequence[int],
    *,
    seed: int,
    max_iterations: int = 100,
    tolerance: float = 0.0,
) -> dict[int, KMeansResult]:
    """Return clusterings into several numbers of clusters, all begun from one seeding.

    The first k of more centres of greedy k-means++ are a seeding for k clusters, so only the
    largest count is seeded; all share its number of candidates a centre, so a smaller count need
    not give what `kmeans` alone does. The rest as for `kmeans`; ValueError also without counts.
    """
    if not counts:
        raise ValueError("counts is empty: name at least one number of clusters")
    for count in counts:
        check_num_clusters(count, pool.num_rows)
    return pool.run(
        _sweep, sorted(set(counts)), seed=seed, max_iterations=max_iterations, tolerance=tolerance
    )


def _sweep(
    pool: ShardPool, counts: list[int], *, seed: int, max_iterations: int, tolerance: float
) -> dict[int, KMeansResult]:
    centers = greedy_seeds(pool, counts[-1], seed=seed).features
    return {
        count: lloyd(pool, centers[:count], max_iterations=max_iterations, tolerance=tolerance)
        for count in counts
    }
